package transport

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// show quotes a name for an error; a long one is cut, because names come from
// files that somebody else wrote.
func show(name string) string {
	if len(name) > 200 {
		name = name[:200] + "..."
	}
	return strconv.Quote(name)
}

// oneLine makes text of a registry or a library safe to print: one line, no
// control characters that a terminal would obey, of bounded length.
func oneLine(s string) string {
	var b strings.Builder
	space := false
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			space = true
			continue
		}
		if space && b.Len() > 0 {
			b.WriteByte(' ')
		}
		space = false
		if b.Len() > 2000 {
			b.WriteString("...")
			break
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else { // control, format (bidirectional overrides) and surrogates
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// cause is the reason of a file error without the operation and the path,
// which our text names already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return l.Err
	}
	return err
}

// plainError is an error of a library made one line, with nothing secret in
// it, that still unwraps to the original.
type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }

// steps of a transfer, as containers/image puts them before a cause. What
// stands after them up to the next colon is the image or the registry, which
// our own text names.
var steps = []string{
	"initializing source ", "initializing destination ", "fetching manifest ", "reading manifest ", "determining manifest MIME type for ",
	"trying to reuse blob ", "checking whether a blob ", "pinging container registry ", "opening file ", "reading JSON file ", "getting username and password",
}

// brief is a line of containers/image without the steps that led to the cause,
// each of which names the image again. A request that failed is cut to its
// cause; the address is left where that says no other.
func brief(text string) string {
	host := ""
	for {
		step, rest, more := strings.Cut(text, ": ")
		if !more || !slices.ContainsFunc(steps, func(s string) bool { return strings.HasPrefix(step, s) || step == strings.TrimSpace(s) }) {
			break
		}
		if h, ok := strings.CutPrefix(step, "pinging container registry "); ok {
			host = h
		}
		text = rest
	}
	if url, rest, ok := strings.Cut(text, `": `); ok && strings.HasPrefix(url, `Get "http`) && host != "" {
		text = rest
	}
	if host != "" && !strings.Contains(text, host) {
		text = "registry " + host + ": " + text
	}
	return text
}

// plain makes err printable; secrets are cut out of its text.
func plain(err error, secrets ...string) *plainError {
	text := brief(oneLine(err.Error()))
	for _, s := range secrets {
		if len(s) > 0 {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return &plainError{text: text, err: err}
}
