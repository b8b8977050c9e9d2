package containerfile

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"
)

// variable reports whether a word may change when it is expanded; such words
// are checked when they are used.
func variable(word string) bool { return strings.Contains(word, "$") }

// check finds what is wrong with one instruction before anything runs.
func check(ins Instruction) error {
	switch c := ins.Command.(type) {
	case *instructions.CopyCommand:
		if variable(c.From) {
			return ins.Errorf("--from=%s: variables are not expanded there; name a stage with FROM %s AS name and use that", c.From, c.From)
		}
		if ins.hasFlag("from") && c.From == "" {
			return ins.Errorf("--from is empty; want a stage, an image or a build context")
		}
		return checkCopy(ins, c.Chmod, c.Chown, c.SourcesAndDest)
	case *instructions.AddCommand:
		if c.Checksum != "" && !variable(c.Checksum) && !checksum().MatchString(c.Checksum) {
			return ins.Errorf("--checksum=%s: want sha256:<64 hex digits>, or a commit for a git source", quoteWord(c.Checksum))
		}
		return checkCopy(ins, c.Chmod, c.Chown, c.SourcesAndDest)
	case *instructions.StopSignalCommand:
		if !variable(c.Signal) {
			if err := CheckSignal(strings.Trim(c.Signal, `"'`)); err != nil {
				return ins.wrap(err)
			}
		}
	case *instructions.RunCommand:
		return checkRun(ins, c)
	case *instructions.OnbuildCommand:
		return checkOnBuild(ins, c)
	case *instructions.ArgCommand:
		for _, a := range c.Args {
			if !variable(a.Key) && strings.ContainsAny(a.Key, " \t\"'") {
				return ins.Errorf("%s is not a name; want ARG name[=default]", quoteWord(a.Key))
			}
		}
	}
	return nil
}

func (i Instruction) hasFlag(name string) bool {
	if i.node == nil {
		return false
	}
	for _, f := range i.node.Flags {
		n, _, _ := strings.Cut(strings.TrimPrefix(f, "--"), "=")
		if n == name {
			return true
		}
	}
	return false
}

var (
	checksum = lazy(`^(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}|[0-9a-f]{40}|[0-9a-f]{64})$`)
	octal    = lazy(`^0*[0-7]{1,4}$`)
	symbolic = lazy(`^[ugoa]*([-+=]([rwxXst]*|[ugo]))+(,[ugoa]*([-+=]([rwxXst]*|[ugo]))+)*$`)
)

func checkCopy(ins Instruction, chmod, chown string, sd instructions.SourcesAndDest) error {
	if chmod != "" && !variable(chmod) && !octal().MatchString(chmod) && !symbolic().MatchString(chmod) {
		return ins.Errorf("--chmod=%s: want octal digits such as 0755, or clauses such as u=rwX,go=rX", quoteWord(chmod))
	}
	if chown != "" && !variable(chown) {
		user, group, has := strings.Cut(chown, ":")
		if user == "" || has && group == "" || strings.ContainsAny(chown, " \t/") || strings.Contains(group, ":") {
			return ins.Errorf("--chown=%s: want user, uid, user:group or uid:gid", quoteWord(chown))
		}
		for _, id := range []string{user, group} {
			if id != "" && strings.Trim(id, "0123456789") == "" {
				if n, err := strconv.ParseInt(id, 10, 64); err != nil || n > 1<<31-1 {
					return ins.Errorf("--chown=%s: %s is above 2147483647, the highest id", quoteWord(chown), quoteWord(id))
				}
			}
		}
	}
	if sd.DestPath == "" {
		return ins.Errorf("the destination is empty")
	}
	for _, src := range sd.SourcePaths {
		if src == "" {
			return ins.Errorf("a source is empty")
		}
	}
	sources := len(sd.SourcePaths) + len(sd.SourceContents)
	if sources > 1 && !variable(sd.DestPath) && !strings.HasSuffix(sd.DestPath, "/") && sd.DestPath != "." && sd.DestPath != ".." &&
		!strings.HasSuffix(sd.DestPath, "/.") && !strings.HasSuffix(sd.DestPath, "/..") {
		return ins.Errorf("several sources want a directory as destination; write %s/", quoteWord(sd.DestPath))
	}
	return nil
}

func checkRun(ins Instruction, c *instructions.RunCommand) error {
	if len(c.CmdLine) == 0 || c.PrependShell && len(c.CmdLine) == 1 && strings.TrimSpace(c.CmdLine[0]) == "" {
		return ins.Errorf("wants a command")
	}
	if !c.PrependShell && c.CmdLine[0] == "" {
		return ins.Errorf("the command's name is empty")
	}
	for _, f := range ins.node.Flags {
		if variable(f) {
			return nil
		}
	}
	fresh, _ := ins.Fresh().(*instructions.RunCommand)
	if fresh == nil {
		return nil
	}
	same := func(word string) (string, error) { return word, nil }
	_, err := guard(func() (any, error) { return nil, fresh.Expand(same) })
	if err != nil {
		return ins.Errorf("--mount: %w", explain(err))
	}
	expanded := ins
	expanded.Command = fresh
	mounts, err := expanded.Mounts(same)
	if err != nil {
		return ins.wrap(err)
	}
	for _, m := range mounts {
		switch m.Type {
		case instructions.MountTypeBind, instructions.MountTypeCache, instructions.MountTypeTmpfs:
			if m.Target == "" {
				return ins.Errorf("--mount=type=%s: the target is missing; add target=/path", m.Type)
			}
		}
	}
	return nil
}

// checkOnBuild parses the trigger now, so that its mistakes are found here
// and not in the builds that use the image.
func checkOnBuild(ins Instruction, c *instructions.OnbuildCommand) error {
	trigger, err := parseTrigger(ins.File, c.Expression)
	if err == nil {
		return nil
	}
	var inner error = err
	if e, ok := err.(*Error); ok { //nolint:errorlint // parseTrigger returns it bare
		inner = e.Err
	}
	if trigger.Keyword != "" {
		return ins.Errorf("%s: %w", trigger.Keyword, inner)
	}
	return ins.wrap(inner)
}

func checkFrom(ins Instruction, s *instructions.Stage) error {
	if ins.hasFlag("platform") && s.Platform == "" {
		return ins.Errorf("--platform is empty; want os/arch[/variant], such as linux/arm64")
	}
	return nil
}

// Ports reads one expanded word of EXPOSE: port[-port][/tcp|udp|sctp], and
// the form [ip:][host:]port that docker run knows, of which only the port
// counts. It returns each port as "number/protocol".
func Ports(word string) ([]string, error) {
	first, last, proto, err := portRange(word)
	if err != nil {
		return nil, err
	}
	ports := make([]string, 0, last-first+1)
	for n := first; n <= last; n++ {
		ports = append(ports, strconv.Itoa(n)+"/"+proto)
	}
	return ports, nil
}

func portRange(word string) (first, last int, proto string, err error) {
	spec := word
	if i := strings.LastIndexByte(spec, ':'); i >= 0 {
		spec = spec[i+1:]
	}
	span, protocol, has := strings.Cut(spec, "/")
	switch proto = strings.ToLower(protocol); {
	case proto == "":
		proto = "tcp"
	case has && proto != "tcp" && proto != "udp" && proto != "sctp":
		return 0, 0, "", fmt.Errorf("port %s: protocol %s is not tcp, udp or sctp%s", quoteWord(word), quoteWord(protocol), orNearest(protocol, []string{"tcp", "udp", "sctp"}))
	}
	from, to, isRange := strings.Cut(span, "-")
	if !isRange {
		to = from
	}
	low, err1 := strconv.ParseUint(from, 10, 16)
	high, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil {
		return 0, 0, "", fmt.Errorf("port %s: want a number from 0 to 65535, or a range such as 8000-8010, and /tcp, /udp or /sctp", quoteWord(word))
	}
	if high < low {
		return 0, 0, "", fmt.Errorf("port %s: the range ends before it begins", quoteWord(word))
	}
	return int(low), int(high), proto, nil
}

// checkPorts checks the words of EXPOSE that are what they will be, and counts
// the ports of the file.
func (b *fileBuilder) checkPorts(ins Instruction, words []string) error {
	for _, p := range words {
		if variable(p) || strings.ContainsAny(p, `'"`+string(b.file.Escape)) {
			continue
		}
		first, last, _, err := portRange(p)
		if err != nil {
			return ins.wrap(err)
		}
		if b.ports += last - first + 1; b.ports > MaxPorts {
			return ins.Errorf("more than %d ports in the file", MaxPorts)
		}
	}
	return nil
}

// CheckSignal checks an expanded STOPSIGNAL: a number from 1 to 64, a name
// with or without SIG, or a real-time signal such as SIGRTMIN+3.
func CheckSignal(signal string) error {
	if n, err := strconv.Atoi(signal); err == nil {
		if n < 1 || n > 64 {
			return fmt.Errorf("signal %s: numbers are 1 to 64", quoteWord(signal))
		}
		return nil
	}
	name := strings.TrimPrefix(strings.ToUpper(signal), "SIG")
	if realTime(name) || name != "" && unix.SignalNum("SIG"+name) != 0 {
		return nil
	}
	var known []string
	for n := 1; n < 32; n++ {
		if s := unix.SignalName(unix.Signal(n)); s != "" {
			known = append(known, s)
		}
	}
	return fmt.Errorf("unknown signal %s%s", quoteWord(signal), orNearest("SIG"+name, known))
}

// realTime reads RTMIN[+n] and RTMAX[-n].
func realTime(name string) bool {
	for _, base := range []struct{ name, sign string }{{"RTMIN", "+"}, {"RTMAX", "-"}} {
		rest, ok := strings.CutPrefix(name, base.name)
		if !ok {
			continue
		}
		if rest == "" {
			return true
		}
		n, err := strconv.Atoi(strings.TrimPrefix(rest, base.sign))
		return err == nil && strings.HasPrefix(rest, base.sign) && n >= 0 && n <= 30
	}
	return false
}
