package buildcontext

import (
	"net/url"
	"os"
	"path"
	"strings"
)

type kind int

const (
	kindFolder kind = iota
	kindStdin
	kindHTTP
	kindGit
)

// classify tells what a context's location is. A folder that exists is a
// folder whatever it is called.
func classify(location string) kind {
	if location == "-" {
		return kindStdin
	}
	if info, err := os.Stat(location); err == nil && info.IsDir() {
		return kindFolder
	}
	if IsGitURL(location) {
		return kindGit
	}
	if isHTTP(location) {
		return kindHTTP
	}
	return kindFolder
}

func isHTTP(s string) bool {
	lower := strings.ToLower(s)
	return strings.HasPrefix(lower, "http://") || strings.HasPrefix(lower, "https://")
}

// displayURL is a URL for messages: without user, password, query and
// fragment, any of which may be a secret.
func displayURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(malformed URL)"
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	query := u.RawQuery != ""
	u.RawQuery = ""
	s := u.String()
	if query {
		s += "?..."
	}
	return s
}

// urlName is the file name that a URL gives: the last element of its path,
// "" when there is none to use.
func urlName(u *url.URL) string {
	if u.Path == "" || strings.HasSuffix(u.Path, "/") {
		return ""
	}
	name := path.Base(u.Path)
	if name == "." || name == ".." || name == "/" || strings.ContainsAny(name, "\x00/") {
		return ""
	}
	return name
}
