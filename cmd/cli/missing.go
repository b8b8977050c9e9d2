package cli

import (
	"fmt"
	"slices"

	"github.com/stratabuild/strata/define"
)

// MissingFlag is a flag that users know from other builders and that this
// version refuses. docs/reference/missing.md is made from the table.
type MissingFlag struct {
	// Command is strata's command, "" for all of them.
	Command string
	// Name and Short are written without dashes.
	Name, Short string
	// From names the tools that have it.
	From string
	// Instead says what serves a similar purpose here, if anything does.
	Instead string
}

func (m MissingFlag) refusal(spelled string) error {
	s := spelled + " is not in this version of strata"
	if m.Instead != "" {
		s += "; " + m.Instead
	}
	return fmt.Errorf("%s: %w", s, define.ErrUnsupported)
}

// Missing returns the flags that are refused, by command and name.
func Missing() []MissingFlag { return slices.Concat(missingFlags, missingStepFlags) }

// MissingCommands returns the commands of buildah that are refused.
func MissingCommands() []MissingCommand { return slices.Clone(missingCommands) }

func missingFlag(command, name string) (MissingFlag, bool) {
	return findMissing(command, func(m MissingFlag) bool { return m.Name == name })
}

func missingShort(command, letter string) (MissingFlag, bool) {
	return findMissing(command, func(m MissingFlag) bool { return m.Short == letter })
}

func findMissing(command string, is func(MissingFlag) bool) (MissingFlag, bool) {
	for _, m := range Missing() {
		if (m.Command == command || m.Command == "") && is(m) {
			return m, true
		}
	}
	return MissingFlag{}, false
}

func missingCommand(name string) (MissingCommand, bool) {
	for _, m := range missingCommands {
		if m.Name == name {
			return m, true
		}
	}
	return MissingCommand{}, false
}

// noGPG is why there is no --sign-by, and what there is.
const noGPG = "signing with GnuPG needs its library, which a static binary has not; push with --sign-by-sigstore-private-key, or sign with skopeo standalone-sign or cosign"

// Reasons that several rows share.
const (
	noHooks      = "hooks are programs of the host that a step would start outside of its confinement; do the same in a RUN, with --mount or --device"
	noCW         = "images for confidential virtual machines need an encrypted disk and a service that attests it; make them with buildah mkcw of the image"
	afterCommand = "it is a flag of build, from and run, and stands behind their names"
	noInstances  = "there are no builder instances, strata itself builds; leave it out"
)

// MissingCommand is a command of another tool that is refused.
type MissingCommand struct{ Name, Instead string }

var missingCommands = []MissingCommand{
	{"mkcw", "make images for confidential virtual machines with buildah mkcw of an image that strata has built"},
	{"rpc", "it serves buildah's own processes; run strata itself"},
	{"source", "keep sources with an image by strata manifest add --artifact"},
	{"bake", "run strata build for each target; --platform and --target say which"},
	{"buildx", "leave the word out: strata build has the flags of docker buildx build"},
}

var missingFlags = []MissingFlag{
	{Name: "userns-gid-map", From: "buildah", Instead: afterCommand},
	{Name: "userns-uid-map", From: "buildah", Instead: afterCommand},
	{Command: "build", Name: "builder", From: "docker", Instead: noInstances},
	{Command: "build", Name: "cw", From: "buildah", Instead: noCW},
	{Command: "build", Name: "hooks-dir", From: "buildah", Instead: noHooks},
	{Command: "build", Name: "policy", From: "docker", Instead: "rules in Rego are not understood; BuildKit's source policy, in JSON, is: use --source-policy-file"},
	{Command: "build", Name: "sign-by", From: "buildah", Instead: noGPG},
	{Command: "manifest push", Name: "sign-by", From: "buildah", Instead: noGPG},
	{Command: "prune", Name: "builder", From: "docker", Instead: noInstances},
	{Command: "prune", Name: "timeout", From: "docker", Instead: "no daemon has to be waited for; leave it out"},
	{Command: "push", Name: "sign-by", From: "buildah", Instead: noGPG},
}
