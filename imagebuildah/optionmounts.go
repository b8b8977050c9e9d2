package imagebuildah

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// parseMounts reads values of --mount as RUN does.
func parseMounts(list []string) ([]containerfile.Mount, error) {
	if len(list) == 0 {
		return nil, nil
	}
	var line strings.Builder
	line.WriteString("RUN")
	for _, m := range list {
		if strings.ContainsAny(m, "\r\n\x00") {
			return nil, fmt.Errorf("--mount=%q: a line break or zero byte is in it: %w", m, define.ErrInvalid)
		}
		line.WriteString(" --mount=")
		line.WriteString(quoteFlag.Replace(m))
	}
	line.WriteString(" command")
	in, err := containerfile.ParseOnBuild("--mount", line.String())
	if err == nil {
		cmd, ok := in.Command.(*instructions.RunCommand)
		if !ok {
			return nil, fmt.Errorf("--mount: %w", define.ErrInvalid)
		}
		same := func(word string) (string, error) { return word, nil }
		if err = cmd.Expand(same); err == nil {
			var mounts []containerfile.Mount
			if mounts, err = in.Mounts(same); err == nil {
				return mounts, nil
			}
		}
	}
	var e *containerfile.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return nil, fmt.Errorf("%w: %w", err, define.ErrInvalid)
}

// quoteFlag keeps a flag's value one word for the parser.
var quoteFlag = strings.NewReplacer(`\`, `\\`, ` `, `\ `, "\t", "\\\t", `"`, `\"`, `'`, `\'`)

// CheckMounts checks values for Options.Mounts.
func CheckMounts(list []string) error {
	mounts, err := parseMounts(list)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.From != "" {
			return fmt.Errorf("--mount: from=%s: mounts of all steps are taken from the context; write this one into its RUN: %w", m.From, define.ErrUnsupported)
		}
	}
	return nil
}
