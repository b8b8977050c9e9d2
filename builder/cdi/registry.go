package cdi

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// DefaultDirs are where specifications lie, the least important first.
func DefaultDirs() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// Annotations that BuildKit gives a meaning (frontend/dockerfile/docs,
// "RUN --device").
const (
	classAnnotation     = "org.mobyproject.buildkit.device.class"
	autoAllowAnnotation = "org.mobyproject.buildkit.device.autoallow"
)

// Device is a device of a specification.
type Device struct {
	Name string // vendor/class=name
	File string
	// Class is a further name that several devices may have, or "".
	Class string
	// AutoAllow: steps may ask for it without leave.
	AutoAllow bool

	spec *Spec
	own  *SpecDevice
}

// Registry are the devices of directories.
type Registry struct {
	dirs    []string
	devices []Device // by name
	broken  []error  // files that were left out
}

// Open reads the specifications in dirs, or DefaultDirs. Directories that do
// not exist are passed over. Files that cannot be used are left out: who does
// not find a device there is told.
func Open(dirs []string) (*Registry, error) {
	if len(dirs) == 0 {
		dirs = DefaultDirs()
	}
	r := &Registry{dirs: dirs}
	found := map[string]Device{}
	for _, dir := range dirs {
		if err := r.readDir(dir, found); err != nil {
			return nil, err
		}
	}
	for _, d := range found {
		r.devices = append(r.devices, d)
	}
	slices.SortFunc(r.devices, func(a, b Device) int { return strings.Compare(a.Name, b.Name) })
	return r, nil
}

// readDir adds a directory's devices to found, in the place of others' of the
// same names. Two of a name in the directory are none.
func (r *Registry) readDir(dir string, found map[string]Device) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("CDI directory: %w", err)
	}
	own := map[string]Device{}
	twice := map[string]bool{}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if ext != ".json" && ext != ".yaml" {
			continue
		}
		file := filepath.Join(dir, e.Name())
		spec, err := readSpec(file, ext == ".yaml")
		if err != nil {
			r.broken = append(r.broken, fmt.Errorf("%s: %w", file, err))
			continue
		}
		for i := range spec.Devices {
			d := newDevice(spec, &spec.Devices[i], file)
			if other, ok := own[d.Name]; ok {
				r.broken = append(r.broken, fmt.Errorf("%s: device %s is in %s too", file, d.Name, other.File))
				twice[d.Name] = true
			}
			own[d.Name] = d
		}
	}
	for name, d := range own {
		if twice[name] {
			delete(found, name)
		} else {
			found[name] = d
		}
	}
	return nil
}

func readSpec(file string, isYAML bool) (*Spec, error) {
	// Neither a FIFO nor a device may hold us up.
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is no regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxSpec+1))
	if err != nil {
		return nil, err
	}
	return ParseSpec(b, isYAML)
}

func newDevice(spec *Spec, own *SpecDevice, file string) Device {
	annotation := func(name string) string {
		if v, ok := own.Annotations[name]; ok {
			return v
		}
		return spec.Annotations[name]
	}
	d := Device{Name: spec.Kind + "=" + own.Name, File: file, Class: annotation(classAnnotation), spec: spec, own: own}
	d.AutoAllow, _ = strconv.ParseBool(annotation(autoAllowAnnotation)) // as BuildKit: what is no truth value is false
	return d
}

// Devices are all that there are, by name.
func (r *Registry) Devices() []Device { return slices.Clone(r.devices) }

// Broken are the files that could not be used, with the reasons.
func (r *Registry) Broken() []error { return slices.Clone(r.broken) }

// IsName reports the form of a device's full name, vendor/class=name.
func IsName(s string) bool {
	kind, name, ok := strings.Cut(s, "=")
	vendor, class, slash := strings.Cut(kind, "/")
	return ok && slash && isName(vendor, "_-.", true) && isName(class, "_-.", true) && isName(name, "_-.:", false)
}

// Find returns the names of what RUN --device asks for: one device by its
// name, the first of a kind by vendor/class, all of them by vendor/class=*, or
// all of a class.
func (r *Registry) Find(request string) []string {
	kind, name, _ := strings.Cut(request, "=")
	var out []string
	for i := range r.devices {
		d := &r.devices[i]
		of := d.spec.Kind == kind
		switch {
		case d.Name == request, of && name == "*":
			out = append(out, d.Name)
		case of && name == "" && len(out) == 0:
			out = append(out, d.Name)
		}
	}
	if out == nil && request != "" {
		for i := range r.devices {
			if r.devices[i].Class == request {
				out = append(out, r.devices[i].Name)
			}
		}
	}
	return out
}

// Get returns the device of a full name. One that is not there is an error
// that wraps define.ErrNotFound and says where was looked.
func (r *Registry) Get(name string) (Device, error) {
	for i := range r.devices {
		if r.devices[i].Name == name {
			return r.devices[i], nil
		}
	}
	return Device{}, r.Missing(name)
}

// Missing is the error about what was not found.
func (r *Registry) Missing(name string) error {
	err := fmt.Errorf("CDI device %q: no specification in %s has it: %w", name, strings.Join(r.dirs, ", "), define.ErrNotFound)
	if len(r.broken) > 0 {
		err = fmt.Errorf("%w (left out: %w)", err, r.broken[0])
	}
	return err
}
