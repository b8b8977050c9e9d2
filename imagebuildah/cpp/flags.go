package cpp

import (
	"fmt"
	"path"
	"strings"

	"github.com/stratabuild/strata/define"
)

// Flags are the flags of cpp(1) that mean something here.
type Flags struct {
	// lines are the #define and #undef that -D and -U stand for, in order.
	lines []string
	// quote and angle are the directories of -iquote and -I; include are the
	// files of -include. All are relative to the root.
	quote, angle, include []string
}

// ParseFlags reads flags of cpp(1), each an element as on its command line:
// -DNAME, -DNAME=VALUE, -D'NAME(PARAMETERS)=VALUE', -UNAME, -IDIRECTORY,
// -iquote DIRECTORY and -include FILE, whose values may also be the element
// that follows. -undef, -traditional, -traditional-cpp, -E, -P and -nostdinc
// are accepted, for this is what happens anyway. Directories and files are
// relative to the build context and lie within. Others are refused.
func ParseFlags(flags []string) (Flags, error) {
	var f Flags
	for i := 0; i < len(flags); i++ {
		name, value := splitFlag(flags[i])
		if name == "" {
			switch flags[i] {
			case "-undef", "-traditional", "-traditional-cpp", "-E", "-P", "-nostdinc":
				continue
			}
			return f, fmt.Errorf("--cpp-flag %q: want -DNAME, -DNAME=VALUE, -UNAME, -IDIRECTORY, -iquote DIRECTORY, -include FILE, -undef or -traditional: %w", flags[i], define.ErrInvalid)
		}
		shown := flags[i]
		if value == "" {
			if i++; i == len(flags) {
				return f, fmt.Errorf("--cpp-flag %s: its value is missing; write it behind %s, or as the next --cpp-flag: %w", name, name, define.ErrInvalid)
			}
			value = flags[i]
		}
		if err := f.add(name, value); err != nil {
			return f, fmt.Errorf("--cpp-flag %q: %w", shown, err)
		}
	}
	return f, nil
}

func splitFlag(flag string) (name, value string) {
	// -include and -iquote before -I: they are no directories.
	for _, name := range []string{"-include", "-iquote", "-D", "-U", "-I"} {
		if value, ok := strings.CutPrefix(flag, name); ok {
			return name, strings.TrimSpace(value)
		}
	}
	return "", ""
}

func (f *Flags) add(name, value string) error {
	if strings.ContainsAny(value, marks+"\n") {
		return fmt.Errorf("its value holds a newline or NUL: %w", define.ErrInvalid)
	}
	switch name {
	case "-D", "-U":
		line := "#undef " + value
		if name == "-D" {
			macro, text, ok := strings.Cut(value, "=")
			if !ok {
				text = "1"
			}
			line = "#define " + macro + " " + text
		}
		// What is wrong shows now rather than when the file is read.
		p := newProcessor(Options{})
		if err := p.file(&file{name: "--cpp-flag", rest: []byte(line)}); err != nil {
			return fmt.Errorf("%s: %w", strings.TrimPrefix(err.Error(), "--cpp-flag:1: "), define.ErrInvalid)
		}
		f.lines = append(f.lines, line)
		return nil
	}
	inside, ok := within("", value)
	if !ok {
		return fmt.Errorf("%s is outside of the build context; name a place in it: %w", value, define.ErrEscape)
	}
	switch name {
	case "-I":
		f.angle = append(f.angle, inside)
	case "-iquote":
		f.quote = append(f.quote, inside)
	default:
		f.include = append(f.include, inside)
	}
	return nil
}

// within is name beside the directory dir; false when it leaves the root.
func within(dir, name string) (string, bool) {
	if path.IsAbs(name) {
		return "", false
	}
	p := path.Join(dir, name)
	return p, p != ".." && !strings.HasPrefix(p, "../")
}
