package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// settingFlags say what the image of a build has besides what its
// Containerfile says, and which stages are built anew.
type settingFlags struct {
	env, unsetEnv, unsetLabels, unsetAnnotations  []string
	argFiles                                      []string
	inheritLabels, inheritAnnotations             bool
	omitHistory, createdAnnotation, identityLabel bool
	osVersion                                     string
	osFeatures                                    []string
	from                                          string
	squashAll                                     bool
	skipUnused                                    bool
	noCacheStages                                 []string
	cacheTTL                                      string
	saveStages, stageLabels                       bool
	stdin                                         bool
	rewriteTimes                                  bool
}

func (s *settingFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&s.env, "env", nil, "set a variable in every stage that begins with an image, as `name=value`; without =value it is taken from the environment")
	fs.StringSliceVar(&s.unsetEnv, "unsetenv", nil, "leave the variable of this `name` out of the image")
	fs.StringSliceVar(&s.unsetLabels, "unsetlabel", nil, "leave the label of this `key` out of the image")
	fs.StringSliceVar(&s.unsetAnnotations, "unsetannotation", nil, "leave the annotation of this `key` out of the image")
	fs.StringArrayVar(&s.argFiles, "build-arg-file", nil, "read build arguments from this `file`: a name=value a line, and comments that begin with #; --build-arg wins")
	fs.BoolVar(&s.inheritLabels, "inherit-labels", true, "begin with the labels of the base image; false begins every stage with none")
	fs.BoolVar(&s.inheritAnnotations, "inherit-annotations", true, "begin with the annotations of the base image; false begins every stage with none")
	fs.BoolVar(&s.omitHistory, "omit-history", false, "leave the history out of the image")
	fs.BoolVar(&s.createdAnnotation, "created-annotation", false, "add the annotation org.opencontainers.image.created")
	fs.BoolVar(&s.identityLabel, "identity-label", false, "add the label "+identityLabel+" with the version of strata")
	fs.StringVar(&s.osVersion, "os-version", "", "the `version` of the operating system that the image needs")
	fs.StringArrayVar(&s.osFeatures, "os-feature", nil, "a `feature` of the operating system that the image needs; with - behind, one that it does not need although its base does")
	fs.StringVar(&s.from, "from", "", "begin with this `image` instead of what the first FROM names")
	fs.BoolVar(&s.squashAll, "squash-all", false, "make one layer of everything, the base image included")
	fs.BoolVar(&s.skipUnused, "skip-unused-stages", true, "build only the stages that the target needs; false builds all before it")
	fs.StringSliceVar(&s.noCacheStages, "no-cache-filter", nil, "execute every step of these `stages`, although its result is known")
	fs.StringVar(&s.cacheTTL, "cache-ttl", "", "use results of earlier builds only when they are younger than this `duration`, such as 24h; 0 is --no-cache")
	fs.BoolVar(&s.saveStages, "save-stages", false, "keep an image without a name of each stage that the target needs")
	fs.BoolVar(&s.stageLabels, "stage-labels", false, "with --save-stages, add the labels io.buildah.stage.name and io.buildah.stage.base to these images")
	fs.BoolVar(&s.stdin, "stdin", false, "let RUN steps read standard input; what they read is no reason to execute them again")
	fs.BoolVar(&s.rewriteTimes, "rewrite-timestamp", true, "with --source-date-epoch, lower later times of files to it; false leaves them")
	_ = cmd.MarkFlagFilename("build-arg-file")
}

func (s *settingFlags) options(a *app, cmd *cobra.Command, o *imagebuildah.Options) error {
	if err := s.checkTogether(cmd, o); err != nil {
		return err
	}
	o.From, o.SquashAll, o.AllStages, o.NoCacheStages = s.from, s.squashAll, !s.skipUnused, s.noCacheStages
	o.SaveStages, o.StageLabels, o.KeepFileTimes = s.saveStages, s.stageLabels, !s.rewriteTimes
	if s.stdin {
		o.Stdin = a.std.In
	}
	if s.cacheTTL != "" {
		ttl, err := time.ParseDuration(s.cacheTTL)
		if err != nil || ttl < 0 {
			return fmt.Errorf("--cache-ttl %q: want a duration such as 30m or 24h: %w", s.cacheTTL, define.ErrInvalid)
		}
		o.CacheTTL = &ttl
	}
	o.Settings = imagebuildah.Settings{
		UnsetEnv: s.unsetEnv, UnsetLabels: s.unsetLabels, UnsetAnnotations: s.unsetAnnotations,
		DropLabels: !s.inheritLabels, DropAnnotations: !s.inheritAnnotations,
		OmitHistory: s.omitHistory, CreatedAnnotation: s.createdAnnotation, OSVersion: s.osVersion, OSFeatures: s.osFeatures,
	}
	for _, kv := range s.env {
		name, _, given := strings.Cut(kv, "=")
		if name == "" {
			return fmt.Errorf("--env %q: want name=value, or the name of a variable: %w", kv, define.ErrInvalid)
		}
		if !given {
			value := a.getenv(name)
			if value == "" {
				continue // as with --build-arg
			}
			kv += "=" + value
		}
		o.Settings.Env = append(o.Settings.Env, kv)
	}
	for _, f := range s.osFeatures {
		if strings.TrimSuffix(f, "-") == "" {
			return fmt.Errorf("--os-feature %q: want the name of a feature: %w", f, define.ErrInvalid)
		}
	}
	if s.identityLabel {
		// In front: what --label says of it is nearer.
		o.Labels = append([]string{identityLabel + "=" + version().Version}, o.Labels...)
	}
	return nil
}

func (s *settingFlags) checkTogether(cmd *cobra.Command, o *imagebuildah.Options) error {
	fs := cmd.Flags()
	both := func(one, other string) error {
		return fmt.Errorf("--%s and --%s: want one or the other: %w", one, other, define.ErrInvalid)
	}
	switch {
	case fs.Changed("from") && s.from == "":
		return fmt.Errorf("--from: the name is empty: %w", define.ErrInvalid)
	case s.squashAll && o.Squash:
		return both("squash-all", "squash")
	case s.stageLabels && !s.saveStages:
		return fmt.Errorf("--stage-labels is of use with --save-stages only: %w", define.ErrInvalid)
	case fs.Changed("rewrite-timestamp") && s.rewriteTimes && o.SourceDateEpoch == nil:
		return fmt.Errorf("--rewrite-timestamp wants --source-date-epoch: %w", define.ErrInvalid)
	case s.stdin && o.Context.Location == "-":
		return fmt.Errorf("--stdin: standard input is the context: %w", define.ErrInvalid)
	}
	for _, f := range o.Context.Files {
		if s.stdin && f == "-" {
			return fmt.Errorf("--stdin: standard input is the Containerfile: %w", define.ErrInvalid)
		}
	}
	return nil
}

// maxArgLine bounds a line of --build-arg-file, in bytes; values reach
// environments, where one is no longer.
const maxArgLine = 128 << 10

// readArgFile adds the arguments of a file of --build-arg-file.
func readArgFile(name string, args map[string]string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("--build-arg-file: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxArgLine)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if text := strings.TrimSpace(line); text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if k == "" || !ok {
			return fmt.Errorf("--build-arg-file: %s:%d: want name=value: %w", name, n, define.ErrInvalid)
		}
		args[strings.TrimSpace(k)] = v
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("--build-arg-file: %s: %w", name, err)
	}
	return nil
}
