package ui

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/stratabuild/strata/define"
)

// Mode is a way to show progress.
type Mode string

// The modes, as --progress names them.
const (
	ModeAuto  Mode = "auto"
	ModePlain Mode = "plain"
	ModeTTY   Mode = "tty"
	ModeQuiet Mode = "quiet"
	ModeJSON  Mode = "json"
)

// ParseMode reads --progress's value; "none" and "rawjson" are buildx's
// words for quiet and json.
func ParseMode(s string) (Mode, error) {
	switch s {
	case "", "auto":
		return ModeAuto, nil
	case "plain", "tty", "quiet", "json":
		return Mode(s), nil
	case "none":
		return ModeQuiet, nil
	case "rawjson":
		return ModeJSON, nil
	}
	return "", fmt.Errorf("progress %q: want auto, plain, tty, quiet or json: %w", s, define.ErrInvalid)
}

// Display shows events. After Close it ignores them.
type Display interface {
	define.Listener
	// Log shows a line of a library's log.
	Log(line string)
	// Fail reports why the command failed, the "Error:" line last. It ends
	// the display.
	Fail(f Failure)
	// Close draws what is final and gives the terminal back. It may be
	// called more than once.
	Close()
}

// Failure is what Fail reports.
type Failure struct {
	// File, Line and Instruction say which step failed; File is "" when it
	// was no step.
	File        string
	Line        int
	Instruction string
	// Text is the error.
	Text string
	// Code is the exit status that follows.
	Code int
}

// Options says where and how to draw.
type Options struct {
	Out io.Writer
	// Colour allows colours; the caller knows of NO_COLOR and terminals.
	Colour bool
	// Unicode allows characters beyond ASCII in the display's own signs.
	Unicode bool
	// Size returns the terminal's columns and rows; only ModeTTY asks.
	Size func() (columns, rows int)
}

// New returns the display of the mode, which is not ModeAuto.
func New(m Mode, o Options) Display {
	switch m {
	case ModeTTY:
		return newTerminal(o)
	case ModeQuiet:
		return &quiet{out: o.Out, paint: painter(o.Colour)}
	case ModeJSON:
		return &jsonLines{out: o.Out}
	default:
		return newPlain(o)
	}
}

// painter wraps text in colours, or leaves it.
type painter bool

func (p painter) paint(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p painter) bold(s string) string   { return p.paint("1", s) }
func (p painter) dim(s string) string    { return p.paint("2", s) }
func (p painter) red(s string) string    { return p.paint("1;31", s) }
func (p painter) green(s string) string  { return p.paint("32", s) }
func (p painter) yellow(s string) string { return p.paint("33", s) }
func (p painter) cyan(s string) string   { return p.paint("36", s) }

// place writes "file:line: ", or less when less is known.
func place(file string, line int) string {
	switch {
	case file == "":
		return ""
	case line <= 0:
		return Clean(file) + ": "
	}
	return fmt.Sprintf("%s:%d: ", Clean(file), line)
}

// report writes the failure of a step: where, what, the end of its output,
// and the error.
func report(w io.Writer, p painter, f Failure, output []string) {
	var b strings.Builder
	// The error of a step begins with its place: without output to show,
	// saying it once is enough.
	where := place(f.File, f.Line)
	if f.File != "" && (len(output) > 0 || !strings.HasPrefix(Clean(f.Text), where)) {
		fmt.Fprintf(&b, "%s%s\n", where, p.bold(Clean(f.Instruction)))
		for _, l := range output {
			b.WriteString(p.dim("  | ") + l + "\n")
		}
	}
	b.WriteString(p.red("Error:") + " " + Clean(f.Text) + "\n")
	_, _ = io.WriteString(w, b.String())
}

// stepName is a step's stage and platform, as a prefix of lines.
func stepName(s *define.Step) string {
	name := Clean(s.Stage)
	if s.Platform != "" {
		name = strings.TrimSpace(Clean(s.Platform) + " " + name)
	}
	return name
}

// seconds writes a duration as a person reads it: 0.4s, 12.3s, 4m05s.
func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	d = d.Round(time.Second)
	if d < time.Hour {
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm%02ds", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
}

// size writes bytes in decimal units with a space, as listings do.
func size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

func shortLayer(id define.LayerID) string {
	if len(id) > 12 {
		return Clean(string(id[:12]))
	}
	return Clean(string(id))
}
