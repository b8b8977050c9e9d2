package containerfile

import (
	"errors"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// flags are the flags of each instruction, as the typed forms read them.
var flags = map[string][]string{
	"ADD":         {"chown", "chmod", "link", "keep-git-dir", "checksum", "unpack", "exclude"},
	"COPY":        {"chown", "from", "chmod", "link", "exclude", "parents"},
	"FROM":        {"platform", "after"},
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
			if err := checkFlagValue(ins, name, flag); err != nil {
				return err
			}
			continue
		}
		if len(known) == 0 {
			return ins.Errorf("unknown flag %s; %s takes no flags", quoteWord("--"+name), ins.Keyword)
		}
		return ins.Errorf("unknown flag %s%s", quoteWord("--"+name), orNearest("--"+name, dashed))
	}
	return nil
}

// checkFlagValue checks the flags whose faults BuildKit reports without
// saying which flag it was.
func checkFlagValue(ins Instruction, name, flag string) error {
	_, value, has := strings.Cut(flag, "=")
	if !has {
		return nil
	}
	switch ins.Keyword + " " + name {
	case "RUN network":
		return oneOf(ins, flag, value, "default", "none", "host")
	case "RUN security":
		return oneOf(ins, flag, value, "sandbox", "insecure")
	case "HEALTHCHECK retries":
		if n, err := strconv.ParseInt(value, 10, 32); value != "" && (err != nil || n < 0) {
			return ins.Errorf("%s: want a number, 0 or more", quoteWord(flag))
		}
	case "HEALTHCHECK interval", "HEALTHCHECK timeout", "HEALTHCHECK start-period", "HEALTHCHECK start-interval":
		if d, err := time.ParseDuration(value); value != "" && (err != nil || d != 0 && d < time.Millisecond) {
			return ins.Errorf("%s: want a duration of 1ms or more, such as 30s or 1m30s", quoteWord(flag))
		}
	}
	return nil
}

func oneOf(ins Instruction, flag, value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	last := len(words) - 1
	return ins.Errorf("%s: want %s or %s%s", quoteWord(flag), strings.Join(words[:last], ", "), words[last], orNearest(value, words))
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

var suggestion = lazy(` \(did you mean (.*)\?\)$`)

// patterns and rewrites give BuildKit's sentences the shape of ours.
var patterns = []struct {
	from func() *regexp.Regexp
	to   string
}{
	{lazy(`^\S+ requires (at least|exactly) one argument$`), "wants $1 one argument"},
	{lazy(`(?s)^failed to process (".*"): (.*)$`), "$2 in $1"},
	{lazy(`^Syntax error - can't find = in (.*)\. Must be of the form: name=value$`), "$1 is not of the form name=value; quote values that hold spaces"},
	{lazy(`^missing a value on flag: (\S+)$`), "$1 wants a value"},
	{lazy(`^duplicate flag specified: (\S+)$`), "$1 is given twice"},
	{lazy(`^expecting boolean value for flag (\S+), not: (.*)$`), "$1=$2: want true or false"},
	{lazy(`^invalid name for build stage: ("(?s:.*)"), name can't start with a number or contain symbols$`), "$1 is no name for a stage; want a letter, then letters, digits, -, _ and ."},
	{lazy(`^(?:COPY|ADD) cannot accept a heredoc as a destination$`), "the destination is a heredoc; it comes last, after the sources"},
	{lazy(`^'from' doesn't support variable expansion, define alias stage instead$`), "--mount: variables are not expanded in from; name a stage with FROM ... AS name and use that"},
	{lazy(`^invalid field '((?s:.*))' must be a key=value pair$`), "$1 wants a value"},
	{lazy(`^unexpected key '((?s:.*))' in '(?s:.*)'$`), "unknown key $1"},
	{lazy(`^unexpected key '((?s:.*))' for mount type '((?s:.*))'$`), "key $1 is not for type=$2"},
	{lazy(`^Unknown type ("(?s:.*)") in HEALTHCHECK \(try CMD\)$`), "$1 is neither CMD nor NONE; want HEALTHCHECK CMD command"},
	{lazy(`^unsupported mount type ("(?s:.*)")$`), "type=$1: want bind, cache, tmpfs, secret or ssh"},
	{lazy(`^only one (\w+) parser directive can be used$`), "# $1= is given twice"},
}

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
	if m := suggestion().FindStringSubmatch(text); m != nil {
		text, tail = text[:len(text)-len(m[0])], "; did you mean "+m[1]+"?"
	}
	for _, r := range patterns {
		text = r.from().ReplaceAllString(text, r.to)
	}
	for _, r := range rewrites {
		text = strings.Replace(text, r[0], r[1], 1)
	}
	return errors.New(oneLine(text) + tail)
}

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
