package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/stratabuild/strata/define"
)

// MaxSpec bounds a specification's file, in bytes.
const MaxSpec = 1 << 20

// Spec is one file: the devices of a kind.
type Spec struct {
	Version     string            `json:"cdiVersion" yaml:"cdiVersion"`
	Kind        string            `json:"kind" yaml:"kind"` // vendor/class
	Annotations map[string]string `json:"annotations" yaml:"annotations"`
	Devices     []SpecDevice      `json:"devices" yaml:"devices"`
	// Edits are made once for all devices of the file.
	Edits SpecEdits `json:"containerEdits" yaml:"containerEdits"`
}

// SpecDevice is a device as a file has it.
type SpecDevice struct {
	Name        string            `json:"name" yaml:"name"`
	Annotations map[string]string `json:"annotations" yaml:"annotations"`
	Edits       SpecEdits         `json:"containerEdits" yaml:"containerEdits"`
}

// SpecEdits are containerEdits.
type SpecEdits struct {
	Env            []string    `json:"env" yaml:"env"`
	DeviceNodes    []SpecNode  `json:"deviceNodes" yaml:"deviceNodes"`
	NetDevices     []SpecNet   `json:"netDevices" yaml:"netDevices"`
	Mounts         []SpecMount `json:"mounts" yaml:"mounts"`
	Hooks          []SpecHook  `json:"hooks" yaml:"hooks"`
	IntelRdt       *SpecRdt    `json:"intelRdt" yaml:"intelRdt"`
	AdditionalGIDs []uint32    `json:"additionalGids" yaml:"additionalGids"`
}

// SpecNode is a device node; what is not given is that of the host's node.
type SpecNode struct {
	Path        string  `json:"path" yaml:"path"`
	HostPath    string  `json:"hostPath" yaml:"hostPath"` // "" is Path
	Type        string  `json:"type" yaml:"type"`         // b, c, u or p
	Major       int64   `json:"major" yaml:"major"`
	Minor       int64   `json:"minor" yaml:"minor"`
	FileMode    *uint32 `json:"fileMode" yaml:"fileMode"`
	Permissions string  `json:"permissions" yaml:"permissions"` // of r, w and m
	UID         *uint32 `json:"uid" yaml:"uid"`
	GID         *uint32 `json:"gid" yaml:"gid"`
}

// SpecNet is a network device that would be moved.
type SpecNet struct {
	HostInterfaceName string `json:"hostInterfaceName" yaml:"hostInterfaceName"`
	Name              string `json:"name" yaml:"name"`
}

// SpecMount is a bind mount.
type SpecMount struct {
	HostPath      string   `json:"hostPath" yaml:"hostPath"`
	ContainerPath string   `json:"containerPath" yaml:"containerPath"`
	Options       []string `json:"options" yaml:"options"`
	Type          string   `json:"type" yaml:"type"`
}

// SpecHook is a program that a runtime would start.
type SpecHook struct {
	HookName string   `json:"hookName" yaml:"hookName"`
	Path     string   `json:"path" yaml:"path"`
	Args     []string `json:"args" yaml:"args"`
	Env      []string `json:"env" yaml:"env"`
	Timeout  *int     `json:"timeout" yaml:"timeout"`
}

// SpecRdt is a partition of a processor's cache.
type SpecRdt struct {
	ClosID           string   `json:"closID" yaml:"closID"`
	L3CacheSchema    string   `json:"l3CacheSchema" yaml:"l3CacheSchema"`
	MemBwSchema      string   `json:"memBwSchema" yaml:"memBwSchema"`
	EnableCMT        bool     `json:"enableCMT" yaml:"enableCMT"`
	EnableMBM        bool     `json:"enableMBM" yaml:"enableMBM"`
	Schemata         []string `json:"schemata" yaml:"schemata"`
	EnableMonitoring bool     `json:"enableMonitoring" yaml:"enableMonitoring"`
}

// versions are those of the specification.
var versions = []string{"0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"}

// ParseSpec reads a specification in JSON or, with yaml, in YAML. Keys that the
// specification does not have, and all that it forbids, are errors that wrap
// define.ErrInvalid.
func ParseSpec(data []byte, isYAML bool) (*Spec, error) {
	if len(data) > MaxSpec {
		return nil, fmt.Errorf("larger than %d bytes: %w", MaxSpec, define.ErrInvalid)
	}
	s := &Spec{}
	if err := decode(data, isYAML, s); err != nil {
		return nil, fmt.Errorf("%s: %w", oneLine(err.Error()), define.ErrInvalid)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", err, define.ErrInvalid)
	}
	return s, nil
}

func decode(data []byte, isYAML bool, s *Spec) (err error) {
	defer func() {
		if p := recover(); p != nil { // of the YAML library
			err = errors.New("malformed")
		}
	}()
	var d interface{ Decode(any) error }
	if isYAML {
		y := yaml.NewDecoder(bytes.NewReader(data))
		y.KnownFields(true)
		d = y
	} else {
		j := json.NewDecoder(bytes.NewReader(data))
		j.DisallowUnknownFields()
		d = j
	}
	if err := d.Decode(s); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("the file is empty")
		}
		return err
	}
	var more any
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("something follows the specification")
	}
	return nil
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
}

func (s *Spec) check() error {
	if !slices.Contains(versions, strings.TrimPrefix(s.Version, "v")) {
		return fmt.Errorf("cdiVersion %q: want one of %s to %s", s.Version, versions[0], versions[len(versions)-1])
	}
	if vendor, class, ok := strings.Cut(s.Kind, "/"); !ok || !isName(vendor, "_-.", true) || !isName(class, "_-.", true) {
		return fmt.Errorf("kind %q: want vendor/class, such as vendor.com/gpu", s.Kind)
	}
	if len(s.Devices) == 0 {
		return errors.New("has no devices")
	}
	if err := s.Edits.check(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range s.Devices {
		d := &s.Devices[i]
		if !isName(d.Name, "_-.:", false) {
			return fmt.Errorf("device name %q: want letters, digits, and _ - . : between them", d.Name)
		}
		if seen[d.Name] {
			return fmt.Errorf("device %s is there twice", d.Name)
		}
		seen[d.Name] = true
		if err := d.Edits.check(); err != nil {
			return fmt.Errorf("device %s: %w", d.Name, err)
		}
	}
	return nil
}

// isName reports a name of letters, digits and, between them, marks.
func isName(s, marks string, letterFirst bool) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		switch {
		case letter, digit && (i > 0 || !letterFirst):
		case i > 0 && i < len(s)-1 && strings.IndexByte(marks, c) >= 0:
		default:
			return false
		}
	}
	return true
}

func (e *SpecEdits) check() error {
	for _, kv := range e.Env {
		if strings.IndexByte(kv, '=') < 1 || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("env %q: want NAME=value", kv)
		}
	}
	for _, n := range e.DeviceNodes {
		if !isPath(n.Path) || n.HostPath != "" && !isPath(n.HostPath) {
			return fmt.Errorf("device node %q of %q: want absolute paths", n.Path, n.HostPath)
		}
		if !slices.Contains([]string{"", "b", "c", "u", "p"}, n.Type) || n.Major < 0 || n.Minor < 0 {
			return fmt.Errorf("device node %s: type %q, number %d:%d: want b, c, u or p and no negative number", n.Path, n.Type, n.Major, n.Minor)
		}
		if strings.Trim(n.Permissions, "rwm") != "" {
			return fmt.Errorf("device node %s: permissions %q: want some of rwm", n.Path, n.Permissions)
		}
	}
	for _, m := range e.Mounts {
		if !isPath(m.HostPath) || !isPath(m.ContainerPath) {
			return fmt.Errorf("mount of %q on %q: want absolute paths", m.HostPath, m.ContainerPath)
		}
	}
	for _, h := range e.Hooks {
		if h.HookName == "" || h.Path == "" {
			return fmt.Errorf("hook %q of %q: want a name and a path", h.Path, h.HookName)
		}
	}
	return nil
}

func isPath(p string) bool { return path.IsAbs(p) && !strings.ContainsRune(p, 0) }
