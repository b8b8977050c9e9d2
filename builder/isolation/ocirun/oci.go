package ocirun

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/builder/isolation"
)

// oci is one installed runtime and how it is called.
type oci struct {
	path   string
	o      Options
	userns bool // this process is in a user namespace that is not the first
	probed bool
}

func newOCI(path string, o Options) *oci {
	return &oci{path: path, o: o, userns: inUserNamespace()}
}

// family is the runtime whose flags apply: "crun", "runc", ... or "". Names
// such as crun-1.20 and runc.real count.
func (r *oci) family() string {
	base := filepath.Base(r.path)
	for _, c := range candidates {
		if strings.HasPrefix(base, c) {
			return c
		}
	}
	return ""
}

// flags are the runtime's global flags for a step.
func (r *oci) flags(w *work, spec *specs.Spec) []string {
	state := r.o.StateDir
	if state == "" {
		state = w.path("state")
	}
	f := []string{"--root", state, "--log", w.path("log"), "--log-format", "json"}
	limits := wantsLimits(spec)
	switch r.family() {
	case "crun":
		if !limits {
			f = append(f, "--cgroup-manager=disabled")
		}
	case "runc":
		if r.userns {
			// Left to itself runc guesses from $USER. True makes a cgroup that
			// cannot be made no error.
			f = append(f, "--rootless=true")
		}
	case "runsc":
		if !limits {
			f = append(f, "--ignore-cgroups")
		}
		if !hasNamespace(spec, specs.NetworkNamespace) {
			f = append(f, "--network=host")
		}
	}
	return append(f, r.o.Flags...)
}

// wantsLimits reports whether s asks for anything that needs a cgroup.
func wantsLimits(s *specs.Spec) bool {
	return s.Linux != nil && (s.Linux.Resources != nil || s.Linux.CgroupsPath != "")
}

// deniesDevices reports whether the bundle is to deny devices other than
// those of /dev, which runc adds to the list itself: without a list it allows
// every one that can be made. Without CAP_MKNOD none can.
func (r *oci) deniesDevices(s *specs.Spec) bool {
	return r.family() == "runc" && !r.userns && !wantsLimits(s) && s.Process.Capabilities != nil &&
		slices.Contains(s.Process.Capabilities.Bounding, "CAP_MKNOD")
}

func hasNamespace(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	for _, n := range s.Linux.Namespaces {
		if n.Type == t {
			return true
		}
	}
	return false
}

// inUserNamespace reports a user namespace other than the machine's first,
// which maps all ids to themselves.
var inUserNamespace = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
})

// probe runs a step whose root is empty.
func (r *oci) probe(ctx context.Context) error {
	dir, err := os.MkdirTemp(r.o.TempDir, "strata-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	spec, err := isolation.NewSpec(isolation.Options{
		Args: []string{"/probe"}, Env: []string{"HOME=/"}, Rootless: r.userns, SingleID: r.userns,
	})
	if err != nil {
		return err
	}
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := isolation.MakeTargets(root, spec.Targets()); err != nil {
		return err
	}
	err = r.run(ctx, &isolation.Step{Spec: spec, Root: root})
	var exit *isolation.ExitError
	if errors.As(err, &exit) && exit.Code == 127 {
		r.probed = true
		return nil
	}
	if err == nil {
		return errors.New("a program that does not exist ended with status 0")
	}
	return err
}
