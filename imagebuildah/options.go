package imagebuildah

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
	"github.com/stratabuild/strata/imagebuildah/sourcepolicy"
)

// Options describes one build. It is made once, from flags or by a program,
// and travels unchanged.
type Options struct {
	Context buildcontext.Options
	// Tags are the names to record the image under; the registry localhost/
	// and the tag :latest are added where missing.
	Tags      []string
	BuildArgs map[string]string
	// Labels and Annotations are "key=value".
	Labels, Annotations []string
	// Target is a stage's name or index; "" is the last.
	Target string
	// NoCache executes every step; results are still recorded.
	NoCache bool
	// Layers false makes one layer of each stage and neither uses nor feeds
	// the cache; nil is true.
	Layers *bool
	// NoCacheStages are stages, by name or number, of which every step is
	// executed; what they give is recorded.
	NoCacheStages []string
	// CacheTTL is how old a recorded result may be; nil: as old as it likes.
	CacheTTL *time.Duration
	// CacheFrom are caches elsewhere that are asked for results which the
	// store's does not have; CacheTo are those that get the build's results.
	CacheFrom, CacheTo []CachePlace
	// InlineCache writes into the image which of its layers each step made, so
	// that it can be one of CacheFrom elsewhere.
	InlineCache bool
	// From replaces the base of the first FROM; "" leaves it.
	From string
	// AllStages builds stages before the target that it does not need, too.
	AllStages bool
	// SaveStages records an image without a name of each stage that the target
	// needed; StageLabels gives them labels with the stage's name and base.
	SaveStages, StageLabels bool
	// Settings are further settings of images.
	Settings Settings
	// Squash makes one layer of all that was added to the base; SquashAll one
	// of everything.
	Squash, SquashAll bool
	Pull              define.PullPolicy
	Format            define.Format
	// Platforms are the target platforms; empty is the host's. Several give
	// an image each, and a list of them under the tags.
	Platforms []define.Platform
	// AllPlatforms builds for all platforms that the base images of the
	// stages have in common; Platforms is empty then.
	AllPlatforms bool
	// Manifest names a list of images of the store. A build for several
	// platforms is recorded under it, too; the image of a single one is
	// added to it.
	Manifest string
	// Jobs is how many steps may execute at once; 0 is a default that suits
	// the machine.
	Jobs int
	// Timestamp sets all times: of layers' files, history and image.
	Timestamp *time.Time
	// SourceDateEpoch sets the times of history and image, and lowers later
	// times of layers' files to it.
	SourceDateEpoch *time.Time
	// KeepFileTimes leaves times of files as they are in spite of
	// SourceDateEpoch.
	KeepFileTimes bool
	// Stdin is what RUN steps read; nil is nothing. It does not count for the
	// cache.
	Stdin *os.File
	// Push says how layers are written elsewhere than to the store.
	Push transport.PushOptions
	// Outputs is where the result goes; empty is the store.
	Outputs []Output
	// OnError, when set, is asked when the process of a RUN fails: it may look
	// at the step, and have it run again on what is there. It is called by one
	// goroutine a step; with Jobs 1 by one at a time.
	OnError func(context.Context, *FailedStep) (again bool, err error)
	// Explain reports why each step was executed or not.
	Explain bool
	Run     RunOptions
	// Mounts are mounts of every RUN, in the form of RUN --mount; without from=.
	Mounts []string
	// BuildContexts are further contexts by name: what FROM and from= of the
	// name mean. See CheckBuildContext for the values.
	BuildContexts map[string]string
	// Allow lists what the Containerfile may ask for besides (see
	// CheckEntitlement).
	Allow   []string
	Secrets []Secret
	SSH     []SSH
	// CompatVolumes throws away what RUN steps change below the image's
	// volumes.
	CompatVolumes bool
	// StageImageLabels are "key=value", for the images of SaveStages.
	StageImageLabels []string
	// SourcePolicy decides which images, downloads and repositories a build
	// may use, and in place of which others; nil allows all.
	SourcePolicy *sourcepolicy.Policy
	// SBOMs are bills of materials that are made of each image.
	SBOMs []SBOM
}

// RunOptions is what flags say about RUN steps.
type RunOptions = builder.Confinement

// Output is one --output.
type Output struct {
	// Type is "image", "registry", "oci", "docker", "tar" or "local".
	Type string
	// Dest is a file or directory; "-" is Stdout.
	Dest string
	// Attrs are further key=value pairs (name, push, compression...).
	Attrs map[string]string
}

// Result is what a build made.
type Result struct {
	ImageID   define.ImageID
	Digest    digest.Digest // of the manifest in the store
	MediaType string
	Size      int64
	Names     []string
	// Pushed are the digests of manifests written elsewhere, by destination.
	Pushed map[string]digest.Digest
	// Cached and Executed count steps.
	Cached, Executed int
	// Platforms are the images of a list, when several platforms were
	// asked for: ImageID and the other fields are then the list's.
	Platforms []PlatformResult
}

// PlatformResult is one image of a list.
type PlatformResult struct {
	Platform  define.Platform
	ImageID   define.ImageID
	Digest    digest.Digest
	MediaType string
	Size      int64 // of the manifest, bytes
}

// InstructionError is a failure of one instruction.
type InstructionError struct {
	File string
	Line int
	// Instruction is its text as written, on one line.
	Instruction string
	Err         error
}

func (e *InstructionError) Error() string {
	return fmt.Sprintf("%s:%d: %s: %v", e.File, e.Line, e.Instruction, e.Err)
}

// Unwrap returns the cause: an *isolation.ExitError when a process failed.
func (e *InstructionError) Unwrap() error { return e.Err }

func (o *Options) layers() bool { return o.Layers == nil || *o.Layers }

func (o *Options) platform() define.Platform {
	if len(o.Platforms) > 0 {
		return define.NormalizePlatform(o.Platforms[0])
	}
	return define.HostPlatform()
}

// fixedTime is the time that history and image carry instead of the clock's.
func (o *Options) fixedTime() *time.Time {
	t := o.Timestamp
	if t == nil {
		t = o.SourceDateEpoch
	}
	if t == nil {
		return nil
	}
	utc := t.UTC()
	return &utc
}
