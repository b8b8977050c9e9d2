package buildcontext

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/stratabuild/strata/define"
)

// Secrets finds a secret of the build by its id; a nil one has none. Those
// with these ids are for servers, as BuildKit has it:
//
//	HTTP_AUTH_HEADER_<host>  the Authorization header for URLs of the host
//	HTTP_AUTH_TOKEN_<host>   a bearer token for them
//	GIT_AUTH_HEADER[.<host>] the Authorization header for git by http(s)
//	GIT_AUTH_TOKEN[.<host>]  a token for it, as the password of x-access-token
//
// A git host has its port behind it if the URL has one. What a secret holds
// goes to that host alone, also after a redirect, and into no message.
type Secrets func(id string) (value []byte, ok bool, err error)

// forHTTP is the Authorization header for a URL, "" when there is none.
func (s Secrets) forHTTP(u *url.URL) (string, error) {
	token, err := s.header("HTTP_AUTH_TOKEN_"+u.Hostname(), "Bearer ")
	if err != nil || token != "" {
		return token, err
	}
	return s.header("HTTP_AUTH_HEADER_"+u.Hostname(), "")
}

// forGit is the Authorization header for a repository, "" when there is none.
func (s Secrets) forGit(u *url.URL) (string, error) {
	for _, suffix := range []string{"." + u.Host, ""} {
		header, err := s.header("GIT_AUTH_HEADER"+suffix, "")
		if err != nil || header != "" {
			return header, err
		}
		token, err := s.find("GIT_AUTH_TOKEN" + suffix)
		if err != nil {
			return "", err
		}
		if token != "" {
			return "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token)), nil
		}
	}
	return "", nil
}

func (s Secrets) header(id, before string) (string, error) {
	value, err := s.find(id)
	if value == "" || err != nil {
		return "", err
	}
	return before + value, nil
}

// find gives a secret that fits into one line, without the newline that files
// end with.
func (s Secrets) find(id string) (string, error) {
	if s == nil {
		return "", nil
	}
	value, ok, err := s(id)
	if err != nil || !ok {
		return "", err
	}
	value = bytes.TrimSpace(value)
	if bytes.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("secret %s: want one line of text: %w", id, define.ErrInvalid)
	}
	return string(value), nil
}

// authorize hands a header to git in a file, as storeCredentials does with
// passwords: a command line is everybody's to read. It counts for the host
// that it is for.
func (g *gitRun) authorize() error {
	u, err := url.Parse(g.url.Remote)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || g.url.user != nil {
		return nil //nolint:nilerr // no URL (host:path): ssh has its own ways
	}
	header, err := g.options.Secrets.forGit(u)
	if err != nil || header == "" {
		return err
	}
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	text := fmt.Sprintf("[http \"%s\"]\n\textraHeader = \"Authorization: %s\"\n", quoted.Replace(u.Scheme+"://"+u.Host+"/"), quoted.Replace(header))
	g.config, g.secret = filepath.Join(g.temp, "config"), header
	return os.WriteFile(g.config, []byte(text), 0o600)
}
