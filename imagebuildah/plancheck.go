package imagebuildah

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// Entitlements are the values of Options.Allow: what a Containerfile may ask
// for only when the user of the build agrees.
const (
	// AllowHostNetwork is for RUN --network=host in a build whose own steps
	// have another network.
	AllowHostNetwork = "network.host"
	// AllowInsecure is for RUN --security=insecure.
	AllowInsecure = "security.insecure"
	// AllowDevice is for RUN --device: of all devices, or with
	// device=NAME[,alias=OTHER] of one, which the Containerfile may call OTHER.
	AllowDevice = "device"
)

// CheckEntitlement refuses what no --allow can mean.
func CheckEntitlement(name string) error {
	if name == AllowHostNetwork || name == AllowInsecure {
		return nil
	}
	var devices allowedDevices
	if ok, err := devices.parse(name); ok || err != nil {
		return err
	}
	return fmt.Errorf("entitlement %q: want %s, %s, %s or %s=NAME: %w", name, AllowHostNetwork, AllowInsecure, AllowDevice, AllowDevice, define.ErrInvalid)
}

// checkPlan refuses what cannot be executed in any stage that is needed,
// before the first step is.
func (b *build) checkPlan() error {
	triggered := map[int]bool{} // stages whose triggers are executed
	for _, i := range b.graph.BaseStage {
		triggered[i] = true
	}
	for _, i := range b.graph.Needed {
		for j := range b.file.Stages[i].Instructions {
			in := &b.file.Stages[i].Instructions[j]
			err := b.checkInstruction(in)
			if cmd, ok := in.Command.(*instructions.OnbuildCommand); err == nil && ok && triggered[i] {
				err = b.checkTriggerOf(cmd)
			}
			if err != nil {
				return &InstructionError{File: in.File, Line: in.Line, Instruction: in.Text, Err: err}
			}
		}
	}
	return nil
}

// checkTriggerOf checks what an ONBUILD gives to a stage of the same file.
func (b *build) checkTriggerOf(cmd *instructions.OnbuildCommand) error {
	in, err := containerfile.ParseOnBuild("an earlier stage", cmd.Expression)
	if err != nil {
		return err
	}
	return b.checkInstruction(&in)
}

// checkInstruction is about what the text alone tells; words with variables
// are checked when they are filled in.
func (b *build) checkInstruction(in *containerfile.Instruction) error {
	switch cmd := in.Command.(type) {
	case *instructions.RunCommand:
		return b.checkRun(cmd)
	case *instructions.AddCommand:
		var words []string
		for _, src := range cmd.SourcePaths {
			if strings.Contains(src, "$") {
				return nil
			}
			words = append(words, src)
		}
		if strings.Contains(cmd.Checksum, "$") {
			return nil
		}
		t := &transfer{}
		return t.remote(cmd, t.sort(words))
	}
	return nil
}

// checkRun names what this version does not execute, and what the user has
// not allowed.
func (b *build) checkRun(cmd *instructions.RunCommand) error {
	for _, f := range cmd.FlagsUsed {
		if f != "network" && f != "mount" && f != "security" && f != "device" {
			return fmt.Errorf("RUN --%s is not in this version of strata: %w", f, define.ErrUnsupported)
		}
	}
	if _, _, err := b.runDevices(cmd); err != nil {
		return err
	}
	network := b.opts.Run.Network
	if network == "" {
		network = builder.DefaultNetwork
	}
	switch asked := instructions.GetNetwork(cmd); {
	case asked == instructions.NetworkHost && network != isolation.NetworkHost && !slices.Contains(b.opts.Allow, AllowHostNetwork):
		return fmt.Errorf("--network=host would give the step the host's network; allow it with --allow %s: %w", AllowHostNetwork, define.ErrUnsupported)
	case instructions.GetSecurity(cmd) == instructions.SecurityInsecure && !slices.Contains(b.opts.Allow, AllowInsecure):
		return fmt.Errorf("--security=insecure would run the step with all privileges that this process has; allow it with --allow %s: %w", AllowInsecure, define.ErrUnsupported)
	}
	return nil
}

// insecure lifts the confinement as far as this process can: all its
// capabilities, no system call filter, nothing of /proc and /sys hidden or
// read-only, and the host's devices.
func insecure(r *RunOptions) error {
	r.CapAdd, r.CapDrop = []string{"ALL"}, nil
	r.Security = isolation.Security{SeccompUnconfined: true, AppArmor: "unconfined", Unmask: []string{"ALL"}}
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return fmt.Errorf("the host's devices: %w", err)
	}
	r.Devices = slices.Clone(r.Devices)
	for _, e := range entries {
		name := e.Name()
		if e.Type()&fs.ModeDevice == 0 || slices.Contains(ownDevices, name) || strings.HasPrefix(name, "tty") || strings.HasPrefix(name, "vcs") {
			continue
		}
		r.Devices = append(r.Devices, isolation.Device{Source: "/dev/" + name})
	}
	return nil
}

// ownDevices are nodes that each step has one of its own of.
var ownDevices = []string{"null", "zero", "full", "random", "urandom", "console", "ptmx"}
