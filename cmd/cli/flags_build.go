package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
)

// buildFlags are build's flags by topic.
type buildFlags struct {
	tags, files, buildArgs, labels, annotations []string
	target, ignoreFile, format                  string
	noCache, layers, squash, explain            bool
	pull                                        string
	pullAlways, pullNever                       bool
	onError                                     string
	jobs                                        int
	outputs                                     []string
	push                                        bool
	iidFile, iidFileRaw, metadataFile, logFile  string
	quiet                                       bool
	allPlatforms                                bool
	manifest                                    string
	progress                                    string

	registry  registryFlags
	platform  platformFlags
	run       runFlags
	mounts    []string
	resources []string
	sources   sourceFlags
	compat    compatFlags
	time      timeFlags
	private   privateFlags
	call      callFlags
	language  languageFlags
	settings  settingFlags
	compress  compressFlags
	attest    attestFlags
	logs      logFlags
	cache     cacheFlags
}

func (b *buildFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVarP(&b.tags, "tag", "t", nil, "`name[:tag]` of the image; may be repeated")
	fs.StringSliceVarP(&b.files, "file", "f", nil, "the Containerfile: a `path`, a URL, or - for standard input (default: Containerfile, else Dockerfile, in the context)")
	fs.StringArrayVar(&b.buildArgs, "build-arg", nil, "give an ARG its value, as `name=value`; without =value it is taken from the environment")
	fs.StringArrayVar(&b.labels, "label", nil, "add a label to the image, as `key=value`")
	fs.StringArrayVar(&b.annotations, "annotation", nil, "add an annotation to the image's manifest, as `key=value`")
	fs.StringVar(&b.target, "target", "", "build this `stage` instead of the last")
	fs.StringVar(&b.ignoreFile, "ignorefile", "", "use this `file` instead of .containerignore or .dockerignore")
	fs.StringVar(&b.format, "format", "oci", "media types of the image: oci or docker; give the `format`")
	fs.BoolVar(&b.noCache, "no-cache", false, "execute every step, although its result is known")
	fs.BoolVar(&b.layers, "layers", true, "make a layer of each step, which later builds can use; false makes one of each stage")
	fs.BoolVar(&b.squash, "squash", false, "make one layer of all that is added to the base image")
	fs.BoolVar(&b.explain, "explain", false, "say of each step why it was executed or not")
	fs.StringVar(&b.pull, "pull", "missing", "when to fetch base images: missing, always, newer or never; give the `policy` (--pull alone means always)")
	fs.Lookup("pull").NoOptDefVal = "always"
	fs.StringVar(&b.onError, "on-error", "abort", "`what` to do when a RUN fails: abort, or shell, which opens a shell in its place and then offers to run it again (one step at a time)")
	fs.IntVar(&b.jobs, "jobs", 0, "run this `number` of steps at once; 0 suits it to the machine")
	b.addResults(cmd)
	b.registry.add(cmd)
	b.registry.addDecryption(cmd)
	addBlobCache(cmd)
	b.platform.add(cmd)
	fs.BoolVar(&b.allPlatforms, "all-platforms", false, "build for all platforms that the base images have in common")
	fs.StringVar(&b.manifest, "manifest", "", "add the image to the list of images of this `name` (with several platforms: record their list under it)")
	b.run.add(cmd)
	b.run.addHostFiles(cmd)
	fs.StringArrayVar(&b.mounts, "mount", nil, "mount in every RUN step as its own --mount does: `type=bind|cache|secret|ssh|tmpfs,...`; may be repeated")
	b.time.add(cmd)
	b.private.add(cmd)
	b.call.add(cmd)
	b.language.add(cmd)
	b.settings.add(cmd)
	b.compress.add(cmd)
	b.attest.add(cmd)
	b.logs.add(cmd)
	b.sources.add(cmd)
	b.compat.add(cmd)
	addResource(cmd, &b.resources)
	b.cache.add(cmd)
	addNoEffect(cmd)
	fs.BoolVar(&b.pullAlways, "pull-always", false, "the same as --pull=always")
	fs.BoolVar(&b.pullNever, "pull-never", false, "the same as --pull=never")
	_ = fs.MarkHidden("pull-always")
	_ = fs.MarkHidden("pull-never")
	_ = cmd.RegisterFlagCompletionFunc("format", fixedValues("oci", "docker"))
	_ = cmd.RegisterFlagCompletionFunc("pull", fixedValues("missing", "always", "newer", "never"))
	_ = cmd.RegisterFlagCompletionFunc("progress", fixedValues("auto", "plain", "tty", "quiet", "json"))
}

func (b *buildFlags) addResults(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVarP(&b.outputs, "output", "o", nil, "where the result goes: type=image, registry, oci, docker, tar or local with dest=`path`; a directory; or - for a tar stream (default: the store)")
	fs.BoolVar(&b.push, "push", false, "push the image to the registries that its names say")
	fs.StringVar(&b.iidFile, "iidfile", "", "write the image's ID, as sha256:..., to this `file`")
	fs.StringVar(&b.iidFileRaw, "iidfile-raw", "", "write the image's ID, without sha256:, to this `file`")
	fs.StringVar(&b.metadataFile, "metadata-file", "", "write what is known of the result, as JSON, to this `file`")
	fs.StringVar(&b.logFile, "logfile", "", "write progress and the image's ID to this `file` instead of standard error")
	fs.BoolVarP(&b.quiet, "quiet", "q", false, "print nothing but the image's ID")
	fs.StringVar(&b.progress, "progress", "auto", "how to show progress: auto, plain, tty, quiet or json (rawjson); give the `mode`")
}

// noEffect are flags of docker and podman whose wish is always granted, or
// has no meaning here.
var noEffect = []struct {
	name    string
	value   bool
	because string
}{
	{"compress", false, "contexts are not sent anywhere"},
	{"disable-content-trust", true, "policy.json decides which images are trusted"},
	{"force-rm", true, "no intermediate container is ever left"},
	{"load", false, "images always go to the store, unless --output says otherwise"},
	{"rm", true, "no intermediate container is ever left"},
}

func addNoEffect(cmd *cobra.Command) {
	for _, f := range noEffect {
		cmd.Flags().Bool(f.name, f.value, "accepted for docker's sake, without effect: "+f.because)
	}
}

// buildPlan is what the flags of one build come to.
type buildPlan struct {
	engine  builder.Options
	build   imagebuildah.Options
	call    call
	mode    ui.Mode
	files   struct{ iid, iidRaw, metadata resultFile }
	logFile string
	logPlan
	// stdout says that an output goes to standard output, which then holds
	// nothing else.
	stdout bool
}

// plan checks every value and translates the flags. It touches no store.
func (b *buildFlags) plan(a *app, cmd *cobra.Command, args []string) (*buildPlan, error) {
	p := &buildPlan{logFile: b.logFile}
	o := &p.build
	*o = imagebuildah.Options{
		Context: buildcontext.Options{Files: b.files, IgnoreFile: b.ignoreFile, Stdin: a.std.In},
		Labels:  b.labels, Annotations: b.annotations, Target: b.target,
		NoCache: b.noCache, Squash: b.squash, Explain: b.explain, Jobs: b.jobs,
	}
	if len(args) > 0 {
		o.Context.Location = args[0]
	}
	if cmd.Flags().Changed("layers") {
		o.Layers = &b.layers
	}
	for _, step := range []func() error{
		func() error { return b.checkInput(o) },
		func() error { return b.language.options(o) },
		func() error { return b.planContent(a, cmd, o) },
		func() error { return b.settings.options(a, cmd, o) },
		func() error { return b.compress.options(cmd, o) },
		func() error { return b.cache.options(cmd, o) },
		func() error { return b.attest.options(o) },
		func() error { return b.sources.options(a, o) },
		func() error { return b.compat.options(o) },
		func() error { return b.logs.options(a, cmd, p) },
		func() error { return b.private.options(a, o) },
		func() error { return b.planOutputs(a, p) },
		func() error { return b.planEngine(a, cmd, p) },
		func() error { return b.planDisplay(a, cmd, p) },
		func() error { return b.planOnError(a, p) },
		func() (err error) { p.call, err = b.call.options(cmd); return err },
		func() error { return b.planFiles(p) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (b *buildFlags) checkInput(o *imagebuildah.Options) error {
	stdin := 0
	for _, f := range b.files {
		switch f {
		case "-":
			stdin++
		case "":
			return fmt.Errorf("--file: the name is empty: %w", define.ErrInvalid)
		}
	}
	if o.Context.Location == "-" {
		stdin++
	}
	if stdin > 1 {
		return fmt.Errorf("standard input can be the context or one Containerfile, not both: %w", define.ErrInvalid)
	}
	if b.jobs < 0 {
		return fmt.Errorf("--jobs %d: want 0 or more: %w", b.jobs, define.ErrInvalid)
	}
	for flag, values := range map[string][]string{"label": b.labels, "annotation": b.annotations} {
		for _, kv := range values {
			if k, _, ok := strings.Cut(kv, "="); k == "" || flag == "annotation" && !ok {
				return fmt.Errorf("--%s %q: want key=value: %w", flag, kv, define.ErrInvalid)
			}
		}
	}
	if b.ignoreFile != "" {
		if fi, err := os.Stat(b.ignoreFile); err != nil {
			return fmt.Errorf("--ignorefile: %w", err)
		} else if fi.IsDir() {
			return fmt.Errorf("--ignorefile %q: is a directory: %w", b.ignoreFile, define.ErrInvalid)
		}
	}
	return nil
}

// planContent is about what is in the image.
func (b *buildFlags) planContent(a *app, cmd *cobra.Command, o *imagebuildah.Options) (err error) {
	if o.BuildArgs, err = b.args(a); err != nil {
		return err
	}
	if o.Pull, err = b.pullPolicy(cmd); err != nil {
		return err
	}
	if o.Format, err = define.ParseFormat(b.format); err != nil {
		return fmt.Errorf("--format: %w", err)
	}
	if err = b.planPlatforms(o); err != nil {
		return err
	}
	// A build argument of the name says the same, and more nearly than the
	// environment does.
	if v := o.BuildArgs["SOURCE_DATE_EPOCH"]; v != "" && b.time.timestamp == "" &&
		(b.time.epoch == "" || a.fromEnv["source-date-epoch"] == "SOURCE_DATE_EPOCH") {
		b.time.epoch = v
	}
	if o.Timestamp, o.SourceDateEpoch, err = b.time.options(); err != nil {
		return err
	}
	if err := b.run.resource(cmd, b.resources); err != nil {
		return err
	}
	if o.Run, err = b.run.options(); err != nil {
		return err
	}
	if err := a.defaultMounts(&o.Run); err != nil {
		return err
	}
	o.Mounts = b.mounts
	return imagebuildah.CheckMounts(b.mounts)
}

func (b *buildFlags) planPlatforms(o *imagebuildah.Options) (err error) {
	if o.Platforms, err = b.platform.options(); err != nil {
		return err
	}
	if o.AllPlatforms = b.allPlatforms; o.AllPlatforms && len(o.Platforms) > 0 {
		return fmt.Errorf("--all-platforms and --platform: want one or the other: %w", define.ErrInvalid)
	}
	if o.Manifest = b.manifest; o.Manifest == "" {
		return nil
	}
	if _, err := transport.NormalizeTag(o.Manifest); err != nil {
		return fmt.Errorf("--manifest: %w", err)
	}
	return nil
}

func (b *buildFlags) args(a *app) (map[string]string, error) {
	args := make(map[string]string, len(b.buildArgs))
	for _, name := range b.settings.argFiles {
		if err := readArgFile(name, args); err != nil {
			return nil, err
		}
	}
	for _, kv := range b.buildArgs {
		k, v, ok := strings.Cut(kv, "=")
		if k == "" {
			return nil, fmt.Errorf("--build-arg %q: want name=value, or the name of a variable: %w", kv, define.ErrInvalid)
		}
		if !ok {
			// docker and buildah leave out what is not set.
			if v = a.getenv(k); v == "" {
				continue
			}
		}
		args[k] = v
	}
	return args, nil
}

func (b *buildFlags) pullPolicy(cmd *cobra.Command) (define.PullPolicy, error) {
	if b.pullAlways && b.pullNever || (b.pullAlways || b.pullNever) && cmd.Flags().Changed("pull") {
		return 0, fmt.Errorf("--pull, --pull-always and --pull-never: want one of them: %w", define.ErrInvalid)
	}
	switch {
	case b.pullAlways:
		return define.PullAlways, nil
	case b.pullNever:
		return define.PullNever, nil
	}
	p, err := define.ParsePullPolicy(b.pull)
	if err != nil {
		return p, fmt.Errorf("--pull: %w", err)
	}
	return p, nil
}

// planOutputs is about where the image goes and what it is called.
func (b *buildFlags) planOutputs(a *app, p *buildPlan) error {
	outs, names, err := outputs(b.outputs, b.push)
	if err != nil {
		return err
	}
	p.build.Outputs = outs
	p.build.Tags = append(append([]string(nil), b.tags...), names...)
	registry := false
	for _, o := range outs {
		if o.Dest == "-" {
			p.stdout = true
		}
		registry = registry || (o.Type == "registry" || o.Attrs["push"] == "true") && o.Attrs["name"] == ""
	}
	if p.stdout && isTerminal(a.std.Out) {
		return fmt.Errorf("--output: an archive would be written to the terminal; redirect standard output, or give dest=FILE: %w", define.ErrInvalid)
	}
	for _, t := range p.build.Tags {
		if transport.IsTransport(t) {
			continue
		}
		full, err := transport.NormalizeTag(t)
		if err != nil {
			return fmt.Errorf("--tag: %w", err)
		}
		if registry && strings.HasPrefix(full, "localhost/") {
			return fmt.Errorf("%s cannot be pushed: its name has no registry; use -t REGISTRY/NAME: %w", t, define.ErrInvalid)
		}
	}
	if registry && len(p.build.Tags) == 0 {
		return fmt.Errorf("nothing says where to push to: give -t REGISTRY/NAME: %w", define.ErrInvalid)
	}
	return nil
}

func (b *buildFlags) planEngine(a *app, cmd *cobra.Command, p *buildPlan) (err error) {
	e := &p.engine
	e.Store = a.global.store()
	if e.Transport, err = b.registry.options(cmd, true); err != nil {
		return err
	}
	e.Isolation, e.Runtime, e.RuntimeFlags, err = b.run.engine(a)
	return err
}

func (b *buildFlags) planDisplay(a *app, cmd *cobra.Command, p *buildPlan) error {
	mode, err := ui.ParseMode(b.progress)
	if err != nil {
		return fmt.Errorf("--progress: %w", err)
	}
	if b.quiet {
		if cmd.Flags().Changed("progress") && a.fromEnv["progress"] == "" && mode != ui.ModeQuiet {
			return fmt.Errorf("--quiet and --progress=%s: want one or the other: %w", b.progress, define.ErrInvalid)
		}
		mode = ui.ModeQuiet
	}
	if b.logFile != "" && mode == ui.ModeTTY {
		return fmt.Errorf("--logfile and --progress=tty: a file is no terminal: %w", define.ErrInvalid)
	}
	p.mode = mode
	return nil
}

func (b *buildFlags) planFiles(p *buildPlan) error {
	p.files.iid = resultFile{"iidfile", b.iidFile}
	p.files.iidRaw = resultFile{"iidfile-raw", b.iidFileRaw}
	p.files.metadata = resultFile{"metadata-file", b.metadataFile}
	return errors.Join(p.files.iid.check(), p.files.iidRaw.check(), p.files.metadata.check())
}

// NoEffect returns the flags of build that are accepted without effect, each
// with the reason.
func NoEffect() [][2]string {
	var out [][2]string
	for _, f := range noEffect {
		out = append(out, [2]string{f.name, f.because})
	}
	return out
}
