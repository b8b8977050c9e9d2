package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// Change applies instructions of a build file that change nothing but the
// configuration to c.Image, each as a build with the same line would: ENV
// "PATH=$PATH:/opt/bin" is filled in, CMD in its shell form gets the image's
// shell, an ENTRYPOINT resets the image's CMD unless an earlier instruction of
// the list gave one. WORKDIR makes no directory. The history stays as it is.
// All are checked before the first is applied.
func Change(ctx context.Context, c *builder.Container, list []string) error {
	commands := make([]containerfile.Instruction, len(list))
	for i, text := range list {
		in, err := parseChange(text)
		if err != nil {
			return err
		}
		commands[i] = in
	}
	p, err := newPrimitive(ctx, c, StepOptions{}, nil)
	if err != nil {
		return err
	}
	// The changes are made to a copy, so that a mistake leaves none.
	before := c.Image
	c.Image = before.Clone()
	for i := range commands {
		if err = p.change(&commands[i]); err != nil {
			err = changeError(commands[i].Text, err)
			break
		}
	}
	changed := c.Image
	if c.Image = before; err == nil {
		changed.History = before.History
		*c.Image = *changed
	}
	return errors.Join(err, p.close())
}

func parseChange(text string) (containerfile.Instruction, error) {
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	keyword := strings.ToUpper(word)
	if !slices.Contains(changes, keyword) {
		near := define.Nearest(keyword, changes, 1)
		remedy := "want one of " + strings.Join(changes, ", ")
		if len(near) > 0 {
			remedy = "did you mean " + near[0] + "?"
		}
		return containerfile.Instruction{}, fmt.Errorf("change %q: %s: %w", text, remedy, define.ErrInvalid)
	}
	var in containerfile.Instruction
	var err error
	switch keyword {
	case "ONBUILD", "MAINTAINER":
		in, err = parseForeignTrigger(keyword, rest)
	default:
		in, err = containerfile.ParseOnBuild("change", text)
	}
	if err != nil {
		return in, changeError(text, err)
	}
	return in, nil
}

// parseForeignTrigger reads what no trigger may be.
func parseForeignTrigger(keyword, rest string) (containerfile.Instruction, error) {
	f, err := containerfile.Parse("change", []byte("FROM scratch\n"+keyword+" "+rest+"\n"))
	if err != nil {
		return containerfile.Instruction{}, err
	}
	if len(f.Stages) != 1 || len(f.Stages[0].Instructions) != 1 {
		return containerfile.Instruction{}, fmt.Errorf("want one instruction: %w", define.ErrInvalid)
	}
	return f.Stages[0].Instructions[0], nil
}

// changes are the instructions that Change takes.
var changes = []string{"CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "SHELL", "STOPSIGNAL",
	"USER", "VOLUME", "WORKDIR"}

func changeError(text string, err error) error {
	var e *containerfile.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	if errors.Is(err, define.ErrInvalid) {
		return fmt.Errorf("change %q: %w", text, err)
	}
	return fmt.Errorf("change %q: %w: %w", text, err, define.ErrInvalid)
}

func (p *primitive) change(in *containerfile.Instruction) error {
	s := p.s
	if err := s.scope.ExpandCommand(in.Command); err != nil {
		return err
	}
	if cmd, ok := in.Command.(*instructions.WorkdirCommand); ok {
		s.setWorkdir(cmd)
		return nil
	}
	return s.configure(in)
}

// Ports reads what EXPOSE takes, "8080", "53/udp" or "8000-8010/tcp", as ports
// in the form "8080/tcp". Errors wrap define.ErrInvalid.
func Ports(word string) ([]string, error) {
	list, err := containerfile.Ports(word)
	return list, invalid(err)
}

// CheckSignal refuses what STOPSIGNAL does not take: a signal's name, with SIG
// or without, or its number.
func CheckSignal(name string) error { return invalid(containerfile.CheckSignal(name)) }

func invalid(err error) error {
	if err == nil || errors.Is(err, define.ErrInvalid) {
		return err
	}
	return fmt.Errorf("%w: %w", err, define.ErrInvalid)
}
