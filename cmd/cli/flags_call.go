package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
	"github.com/stratabuild/strata/imagebuildah/check"
)

// callFlags are --check and --call: questions about the Containerfile that a
// build answers without building.
type callFlags struct {
	check bool
	call  string
}

// call is what they come to; method "" is a build.
type call struct {
	method       string // check, outline or targets
	json         bool
	ignoreStatus bool
}

func (c *callFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&c.check, "check", false, "check the Containerfile and build nothing; the same as --call=check")
	fs.StringVar(&c.call, "call", "build", "ask about the Containerfile and build nothing: check (lint), outline or targets, and after a comma format=json or ignorestatus; give the `method`")
	_ = cmd.RegisterFlagCompletionFunc("call", fixedValues("build", "check", "outline", "targets",
		"check,format=json", "outline,format=json", "targets,format=json"))
}

// options reads the flags.
func (c *callFlags) options(cmd *cobra.Command) (call, error) {
	var o call
	if c.check && cmd.Flags().Changed("call") {
		return o, fmt.Errorf("--check and --call=%s: want one or the other: %w", c.call, define.ErrInvalid)
	}
	if c.check {
		return call{method: "check"}, nil
	}
	method, rest, _ := strings.Cut(c.call, ",")
	switch method {
	case "build", "":
		if rest != "" {
			return o, fmt.Errorf("--call=%s: a build takes no options there: %w", c.call, define.ErrInvalid)
		}
		return o, nil
	case "check", "lint":
		o.method = "check"
	case "outline", "targets":
		o.method = method
	default:
		return o, fmt.Errorf("--call=%s: want build, check, outline or targets: %w", c.call, define.ErrInvalid)
	}
	for part := range strings.SplitSeq(rest, ",") {
		key, value, has := strings.Cut(part, "=")
		switch {
		case part == "":
		case key == "format" && slices.Contains([]string{"text", "json"}, value):
			o.json = value == "json"
		case key == "format":
			return o, fmt.Errorf("--call=%s: want format=text or format=json: %w", c.call, define.ErrInvalid)
		case key == "ignorestatus":
			ignore := true
			if has {
				var err error
				if ignore, err = strconv.ParseBool(value); err != nil {
					return o, fmt.Errorf("--call=%s: want ignorestatus=true or false: %w", c.call, define.ErrInvalid)
				}
			}
			o.ignoreStatus = ignore
		default:
			return o, fmt.Errorf("--call=%s: unknown option %q; want format=json or ignorestatus: %w", c.call, key, define.ErrInvalid)
		}
	}
	return o, nil
}

// errCheck ends a check that found something, after its result was printed;
// the status is docker's.
type errCheck struct{ err error }

func (e *errCheck) Error() string {
	if e.err == nil {
		return "the check has found something"
	}
	return e.err.Error()
}

func (e *errCheck) Unwrap() error { return e.err }

// exitCheck is the status of a check that has found something.
const exitCheck = 1

// document is an answer.
type document interface{ WriteText(io.Writer) error }

// runCall answers. It opens no store and enters no namespaces.
func runCall(a *app, ctx context.Context, c call, b imagebuildah.Options) error {
	if userns.Waiting() {
		// Two processes read the command line; the first one answers.
		return a.enter(false)
	}
	o := check.Options{Context: b.Context, BuildArgs: b.BuildArgs, Target: b.Target}
	for name := range b.BuildContexts {
		o.Contexts = append(o.Contexts, name)
	}
	if len(b.Platforms) > 0 {
		o.Platform = define.NormalizePlatform(b.Platforms[0])
	}
	var doc document
	var report *check.Report
	var err error
	switch c.method {
	case "check":
		report, err = check.Lint(ctx, o)
		doc = report
	case "outline":
		doc, err = check.Find(ctx, o)
	default:
		doc, err = check.List(ctx, o)
	}
	if err != nil {
		return err
	}
	if c.json {
		enc := json.NewEncoder(a.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(doc)
	} else {
		err = doc.WriteText(a.out)
	}
	if err != nil {
		return &errResult{err}
	}
	if report == nil || !report.Failed() || c.ignoreStatus && report.Err() == nil {
		return nil
	}
	return &errCheck{report.Err()}
}
