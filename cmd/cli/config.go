package cli

import (
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
)

// configFlags are the settings of an image that a container becomes.
type configFlags struct {
	annotations, env, labels, onBuild, ports, volumes, osFeatures []string
	unsetAnnotations, unsetLabels                                 []string
	arch, os, osVersion, variant                                  string
	author, comment, createdBy, historyComment                    string
	cmd, entrypoint, shell                                        string
	domainName, hostName, stopSignal, user, workingDir            string
	health                                                        healthFlags
	addHistory                                                    bool
}

type healthFlags struct {
	test, interval, timeout, startPeriod, startInterval string
	retries                                             int
}

func newConfigCommand(a *app) *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "config [flags] container",
		Short: "Change the settings of the image that a container becomes",
		Long: `Change the settings that the image of a working container will have.

A value of --annotation, --env, --label, --port, --volume or --os-feature that
ends with - removes that entry, and - alone removes all of them. An empty value
of --cmd, --entrypoint, --shell, --healthcheck, --user, --workingdir and of the
other single settings takes the setting away.`,
		Example: `  strata config --env PATH='$PATH:/opt/bin' --workingdir /srv --port 8080 hello
  strata config --entrypoint '["/usr/bin/hello", "--serve"]' --cmd '' hello
  strata config --env DEBUG- --label - hello`,
		Args:              wantArgs(1, 1, "one container"),
		ValidArgsFunction: a.completeContainers(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := flags.plan(a, cmd)
			if err != nil {
				return err
			}
			return runConfig(a, cmd, change, args[0])
		},
	}
	flags.add(cmd)
	return cmd
}

func (c *configFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&c.addHistory, "add-history", false, "add an entry to the history for each setting that is changed")
	fs.StringArrayVarP(&c.annotations, "annotation", "a", nil, "add an annotation to the image's manifest, as `key=value`; key- removes it, - all")
	fs.StringVar(&c.arch, "arch", "", "the processor `architecture` that the image is for")
	fs.StringVar(&c.author, "author", "", "the image's author: a `name` or address")
	fs.StringVar(&c.cmd, "cmd", "", "the `command` that runs by default, or the entry point's arguments: words as a shell splits them, or a JSON list")
	fs.StringVar(&c.comment, "comment", "", "a `comment` on the image (docker format only)")
	fs.StringVar(&c.createdBy, "created-by", "", "`what` made the layer that commit will write, for the history")
	fs.StringVar(&c.domainName, "domainname", "", "domain `name` of containers (docker format only)")
	fs.StringVar(&c.entrypoint, "entrypoint", "", "the entry point: a JSON list, or a `command` for /bin/sh -c")
	fs.StringArrayVarP(&c.env, "env", "e", nil, "set a variable, as `name=value`, in which $NAME is a variable of the image; name alone takes the value of this process; name- removes it, - all")
	c.health.add(cmd)
	fs.StringVar(&c.historyComment, "history-comment", "", "a `comment` on the layer that commit will write, for the history")
	fs.StringVar(&c.hostName, "hostname", "", "host `name` of containers (docker format only)")
	fs.StringArrayVarP(&c.labels, "label", "l", nil, "add a label, as `key=value`; key- removes it, - all")
	fs.StringArrayVar(&c.onBuild, "onbuild", nil, "an `instruction` to execute in builds from the image; - removes all")
	fs.StringVar(&c.os, "os", "", "the `operating-system` that the image is for")
	fs.StringArrayVar(&c.osFeatures, "os-feature", nil, "a `feature` that the image wants of the operating system; feature- removes it, - all")
	fs.StringVar(&c.osVersion, "os-version", "", "the `version` of the operating system that the image wants")
	fs.StringSliceVarP(&c.ports, "port", "p", nil, "a `port` that containers listen on, such as 8080, 53/udp or 8000-8010; port- removes it, - all")
	fs.StringVar(&c.shell, "shell", "", "the `command` in front of shell forms, such as \"/bin/bash -c\"")
	fs.StringVar(&c.stopSignal, "stop-signal", "", "the `signal` that ends containers, by name or number")
	fs.StringSliceVar(&c.unsetAnnotations, "unsetannotation", nil, "remove the annotation of this `key`")
	fs.StringSliceVar(&c.unsetLabels, "unsetlabel", nil, "remove the label of this `key`")
	fs.StringVarP(&c.user, "user", "u", "", "the `user[:group]` that containers run as, by name or number")
	fs.StringVar(&c.variant, "variant", "", "the `variant` of the processor architecture that the image is for")
	fs.StringSliceVarP(&c.volumes, "volume", "v", nil, "a `directory` whose contents outlive containers; directory- removes it, - all")
	fs.StringVar(&c.workingDir, "workingdir", "", "the `directory` that containers start in")
	_ = cmd.RegisterFlagCompletionFunc("arch", fixedValues("amd64", "arm64", "arm", "386", "ppc64le", "riscv64", "s390x"))
}

func (h *healthFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&h.test, "healthcheck", "", "how to see that a container is well: NONE, \"CMD command...\" or \"CMD-SHELL line\"; give the `check`")
	fs.StringVar(&h.interval, "healthcheck-interval", "", "`duration` between two checks, such as 30s")
	fs.IntVar(&h.retries, "healthcheck-retries", 0, "how `many` checks must fail in a row")
	fs.StringVar(&h.startInterval, "healthcheck-start-interval", "", "`duration` between two checks while the container starts")
	fs.StringVar(&h.startPeriod, "healthcheck-start-period", "", "`duration` after the start in which failures do not count")
	fs.StringVar(&h.timeout, "healthcheck-timeout", "", "`duration` after which a check counts as failed")
}

func runConfig(a *app, cmd *cobra.Command, change *configChange, name string) error {
	ctx := cmd.Context()
	engine, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	c, err := engine.OpenContainer(ctx, name)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, c.Close)
	img := c.Image.Clone()
	if err := change.apply(img, c.LayerNote()); err != nil {
		return err
	}
	c.Image = img
	if err := c.Save(ctx); err != nil {
		return err
	}
	for _, w := range change.warnings {
		a.warn(w)
	}
	return nil
}

// warn reports something that does not keep the command from succeeding.
func (a *app) warn(text string) {
	e := define.Event{Kind: define.EventWarning, Text: text}
	if a.display != nil {
		a.display.Event(e)
		return
	}
	ui.New(ui.ModePlain, ui.Options{Out: a.std.Err, Colour: a.colour()}).Event(e)
}
