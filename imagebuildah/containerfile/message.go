package containerfile

import (
	"errors"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// flags are the flags of each instruction, as the typed forms read them.
var flags = map[string][]string{
	"ADD":         {"chown", "chmod", "link", "keep-git-dir", "checksum", "unpack", "exclude"},
	"COPY":        {"chown", "from", "chmod", "link", "exclude", "parents"},
	"FROM":        {"platform"},
	"RUN":         {"mount", "network", "security", "device"},
	"HEALTHCHECK": {"interval", "timeout", "start-period", "start-interval", "retries"},
}

func keywords() []string {
	names := make([]string, 0, len(command.Commands))
	for name := range command.Commands {
		names = append(names, strings.ToUpper(name))
	}
	sort.Strings(names)
	return names
}

// checkFlags names unknown flags with the nearest known one.
func checkFlags(ins Instruction) error {
	if ins.Keyword == "ONBUILD" {
		return nil // flags belong to the trigger, which is checked on its own
	}
	known := flags[ins.Keyword]
	for _, flag := range ins.node.Flags {
		name, _, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		found := false
		dashed := make([]string, len(known))
		for i, k := range known {
			found = found || k == name
			dashed[i] = "--" + k
		}
		if found {
			continue
		}
		if len(known) == 0 {
			return ins.Errorf("unknown flag %s; %s takes no flags", quoteWord("--"+name), ins.Keyword)
		}
		return ins.Errorf("unknown flag %s%s", quoteWord("--"+name), orNearest("--"+name, dashed))
	}
	return nil
}

// quoteWord keeps foreign words on one line and bounded in messages.
func quoteWord(s string) string {
	if len(s) > 80 {
		s = s[:77] + "..."
	}
	q := strconv.Quote(s)
	if q == `"`+s+`"` && s != "" && !strings.ContainsAny(s, " ") {
		return s
	}
	return q
}

var (
	suggestion  = regexp.MustCompile(` \(did you mean (.*)\?\)$`)
	atLeastOne  = regexp.MustCompile(`^(\S+) requires (at least|exactly) one argument$`)
	processed   = regexp.MustCompile(`(?s)^failed to process (".*"): (.*)$`)
	syntaxError = regexp.MustCompile(`^Syntax error - can't find = in (.*)\. Must be of the form: name=value$`)
)

// explain rewrites an error of BuildKit's in our form: without the place,
// which Error holds, and with suggestions after a semicolon.
func explain(err error) error {
	var at *parser.LocationError
	for errors.As(err, &at) {
		inner := at.Unwrap()
		if inner == nil || inner == err {
			break
		}
		err = inner
	}
	text := err.Error()
	tail := ""
	if m := suggestion.FindStringSubmatch(text); m != nil {
		text, tail = text[:len(text)-len(m[0])], "; did you mean "+m[1]+"?"
	}
	if m := atLeastOne.FindStringSubmatch(text); m != nil {
		text = map[string]string{"at least": "wants at least one argument", "exactly": "wants exactly one argument"}[m[2]]
	}
	if m := processed.FindStringSubmatch(text); m != nil {
		text = m[2] + " in " + m[1]
	}
	if m := syntaxError.FindStringSubmatch(text); m != nil {
		text = m[1] + " is not of the form name=value; quote values that hold spaces"
	}
	for _, r := range rewrites {
		text = strings.Replace(text, r[0], r[1], 1)
	}
	return errors.New(oneLine(text) + tail)
}

// rewrites gives BuildKit's remaining sentences the shape of ours.
var rewrites = [][2]string{
	{"FROM requires either one or three arguments", "wants FROM image or FROM image AS name"},
	{"COPY requires at least two arguments, but only one was provided. Destination could not be determined", "wants at least one source and a destination"},
	{"ADD requires at least two arguments, but only one was provided. Destination could not be determined", "wants at least one source and a destination"},
	{"ENV must have two arguments", "wants ENV name=value"},
	{"LABEL must have two arguments", "wants LABEL name=value"},
	{"ENV names can not be blank", "a name is empty; want ENV name=value"},
	{"LABEL names can not be blank", "a name is empty; want LABEL name=value"},
	{"ARG names can not be blank", "a name is empty; want ARG name[=default]"},
	{"Missing command after HEALTHCHECK CMD", "the command after CMD is missing"},
	{"SHELL requires the arguments to be in JSON form", `wants a JSON list, such as SHELL ["/bin/sh", "-c"]`},
	{"VOLUME specified can not be an empty string", "a path is empty"},
	{"HEALTHCHECK NONE takes no arguments", "NONE takes no arguments"},
	{"Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", "ONBUILD ONBUILD is not allowed; a trigger is one instruction"},
	{" isn't allowed as an ONBUILD trigger", " is not allowed as an ONBUILD trigger"},
	{"when using JSON array syntax, arrays must be comprised of strings only", "a JSON list may hold strings only"},
	{"unterminated heredoc", "a heredoc is not ended"},
}

// oneLine escapes what would break the line or the terminal.
func oneLine(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
