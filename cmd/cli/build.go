package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

func newBuildCommand(a *app) *cobra.Command {
	var flags buildFlags
	cmd := &cobra.Command{
		Use:     "build [flags] [context]",
		Aliases: []string{"bud", "build-using-dockerfile"},
		Short:   "Build an image from a Containerfile",
		Long: `Build an image from a Containerfile (or Dockerfile) and a context: a directory
(default: the working directory), a tar file on standard input (-), an archive's
URL or a git repository's.

Standard output gets the image's ID and nothing else; progress goes to standard
error. When a step fails, strata exits with the step's status; every other
failure is 125, an interrupt 130. --check and --call print what they are asked
for instead, and a check that has found something exits with 1.`,
		Example: `  strata build -t hello .
  strata build -f build/Containerfile --target test --build-arg VERSION=1.2 .
  strata build --explain -t hello .
  strata build --check .
  strata build -o type=oci,dest=hello.tar .
  tar c . | strata build -t hello -
  strata build --push -t registry.example/team/hello:1 .`,
		Args: wantArgs(0, 1, "at most one context"),
		RunE: func(cmd *cobra.Command, args []string) error {
			plan, err := flags.plan(a, cmd, args)
			if err != nil {
				return err
			}
			if plan.call.method != "" {
				return runCall(a, cmd.Context(), plan.call, plan.build)
			}
			return runBuild(a, cmd, plan)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	flags.add(cmd)
	return cmd
}

func runBuild(a *app, cmd *cobra.Command, p *buildPlan) error {
	ctx := cmd.Context()
	if p.build.OnError != nil {
		a.guardTerminal(cmd)
	}
	if err := a.enter(true); err != nil {
		return err
	}
	log, err := a.openDisplay(p)
	if err != nil {
		return err
	}
	if p.engine.Listener, err = p.listener(a); err != nil {
		return err
	}
	engine, err := a.openEngine(ctx, p.engine)
	if err != nil {
		return err
	}
	result, err := imagebuildah.Build(ctx, engine, p.build)
	if err != nil {
		return err
	}
	// The display's last frame comes before what the command prints itself.
	a.closeDisplay()
	if p.split != nil && p.split.err != nil {
		return p.split.err
	}
	if err := p.writeFiles(result); err != nil {
		return err
	}
	if log != nil {
		if _, err := fmt.Fprintln(log, result.ImageID); err != nil {
			return fmt.Errorf("--logfile: %w", err)
		}
	}
	if !p.stdout {
		a.println(result.ImageID)
	}
	return nil
}

// openDisplay starts the display, on the log file when there is one, which
// it returns.
func (a *app) openDisplay(p *buildPlan) (io.Writer, error) {
	mode, logFile := p.mode, p.logFile
	if logFile == "" {
		a.startDisplay(mode)
		return nil, nil
	}
	f, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--logfile: %w", err)
	}
	a.logFile = f
	if mode == ui.ModeAuto {
		mode = ui.ModePlain
	}
	shown := ui.New(mode, ui.Options{Out: f})
	if p.logSplit {
		p.split = &splitLog{Display: shown, path: logFile, mode: mode}
		shown = p.split
	}
	a.display = &logged{Display: shown, app: a}
	return f, nil
}

// logged is a display in a file; failures are reported on standard error too.
type logged struct {
	ui.Display
	app *app
}

func (l *logged) Fail(f ui.Failure) {
	l.Display.Fail(f)
	ui.New(ui.ModeQuiet, ui.Options{Out: l.app.std.Err, Colour: l.app.colour()}).Fail(f)
}

// writeFiles writes --iidfile and its kin.
func (p *buildPlan) writeFiles(r *imagebuildah.Result) error {
	if err := p.files.iid.write([]byte(r.ImageID.WithAlgorithm())); err != nil {
		return err
	}
	if err := p.files.iidRaw.write([]byte(r.ImageID)); err != nil {
		return err
	}
	data, err := json.Marshal(metadata(r))
	if err != nil {
		return err
	}
	return p.files.metadata.write(data)
}

// buildMetadata is --metadata-file's document, with the keys that buildx and
// buildah use. Keys only grow.
type buildMetadata struct {
	ConfigDigest string     `json:"containerimage.config.digest,omitempty"` // a list has none
	Digest       string     `json:"containerimage.digest"`
	Descriptor   descriptor `json:"containerimage.descriptor"`
	Name         string     `json:"image.name,omitempty"`
	Cached       int        `json:"strata.steps.cached"`
	Executed     int        `json:"strata.steps.executed"`
	// Pushed are manifests' digests by destination.
	Pushed map[string]string `json:"strata.pushed,omitempty"`
	// Platforms are the images of a list; the keys above are then the list's.
	Platforms []platformMetadata `json:"strata.platforms,omitempty"`
}

// platformMetadata is one image of a list.
type platformMetadata struct {
	Platform     string     `json:"platform"`
	ConfigDigest string     `json:"containerimage.config.digest"`
	Digest       string     `json:"containerimage.digest"`
	Descriptor   descriptor `json:"containerimage.descriptor"`
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

func metadata(r *imagebuildah.Result) buildMetadata {
	m := buildMetadata{
		ConfigDigest: r.ImageID.WithAlgorithm(), Digest: r.Digest.String(),
		Descriptor: descriptor{MediaType: r.MediaType, Digest: r.Digest.String(), Size: r.Size},
		Name:       strings.Join(r.Names, ","), Cached: r.Cached, Executed: r.Executed,
	}
	if len(r.Platforms) > 0 {
		m.ConfigDigest = ""
	}
	for _, p := range r.Platforms {
		m.Platforms = append(m.Platforms, platformMetadata{
			Platform: define.FormatPlatform(p.Platform), ConfigDigest: p.ImageID.WithAlgorithm(), Digest: p.Digest.String(),
			Descriptor: descriptor{MediaType: p.MediaType, Digest: p.Digest.String(), Size: p.Size},
		})
	}
	for dest, d := range r.Pushed {
		if m.Pushed == nil {
			m.Pushed = map[string]string{}
		}
		m.Pushed[dest] = d.String()
	}
	return m
}
