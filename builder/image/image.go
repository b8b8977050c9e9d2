package image

import (
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/define"
)

// MaxDocument bounds configs and manifests, in bytes: registries and
// containers/image refuse larger ones.
const MaxDocument = 4 << 20

// Config is the run-time configuration that instructions change. Its JSON
// form is the "config" object of an image config.
type Config struct {
	v1.ImageConfig
	// Hostname and Domainname are of Docker's format only.
	Hostname    string       `json:",omitempty"`
	Domainname  string       `json:",omitempty"`
	Healthcheck *Healthcheck `json:",omitempty"`
	OnBuild     []string     `json:",omitempty"`
	Shell       []string     `json:",omitempty"`
}

// Healthcheck is Docker's HEALTHCHECK; durations in nanoseconds in JSON. Test
// is empty (inherit), {"NONE"}, {"CMD", arg...} or {"CMD-SHELL", command}.
type Healthcheck struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// History is one line of an image's history; EmptyLayer says that it made no
// layer.
type History = v1.History

// Image is an image before it is encoded. Layers are kept apart: Encode is
// told of them.
type Image struct {
	Platform define.Platform
	Created  *time.Time
	Author   string
	Comment  string // of Docker's format only
	Config   Config
	History  []History
	// OmitHistory leaves the history out of the config.
	OmitHistory bool
	Annotations map[string]string
	// Cache is written by Encode, and by nothing read back into an Image: it
	// says nothing of other images. Nil writes none.
	Cache *CacheRecord `json:"-"`
}

// New returns an image of the platform with nothing in it. What p leaves
// empty is the host's.
func New(p define.Platform) *Image {
	if p.OS == "" || p.Architecture == "" {
		host := define.HostPlatform()
		if p.OS == "" {
			p.OS = host.OS
		}
		if p.Architecture == "" {
			p.Architecture, p.Variant = host.Architecture, host.Variant
		}
	}
	return &Image{Platform: p}
}

// Clone returns a deep copy without Cache.
func (i *Image) Clone() *Image {
	c := *i
	c.Cache = nil
	c.Platform.OSFeatures = slices.Clone(i.Platform.OSFeatures)
	c.Created = clonePtr(i.Created)
	c.Config = i.Config.clone()
	c.History = slices.Clone(i.History)
	for n := range c.History {
		c.History[n].Created = clonePtr(c.History[n].Created)
	}
	c.Annotations = maps.Clone(i.Annotations)
	return &c
}

func (c Config) clone() Config {
	c.ExposedPorts = maps.Clone(c.ExposedPorts)
	c.Env = slices.Clone(c.Env)
	c.Entrypoint = slices.Clone(c.Entrypoint)
	c.Cmd = slices.Clone(c.Cmd)
	c.Volumes = maps.Clone(c.Volumes)
	c.Labels = maps.Clone(c.Labels)
	c.OnBuild = slices.Clone(c.OnBuild)
	c.Shell = slices.Clone(c.Shell)
	if c.Healthcheck = clonePtr(c.Healthcheck); c.Healthcheck != nil {
		c.Healthcheck.Test = slices.Clone(c.Healthcheck.Test)
	}
	return c
}

func clonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// Env returns the value of a variable of the config. The last entry of a name
// counts, as it does for a process.
func (i *Image) Env(name string) (string, bool) {
	for _, entry := range slices.Backward(i.Config.Env) {
		if key, value, _ := strings.Cut(entry, "="); key == name {
			return value, true
		}
	}
	return "", false
}

// SetEnv sets a variable, in place when it exists, else at the end. Doubled
// entries of the name, which some base images have, are reduced to one.
func (i *Image) SetEnv(name, value string) {
	is := func(entry string) bool {
		return strings.HasPrefix(entry, name) && (len(entry) == len(name) || entry[len(name)] == '=')
	}
	at := slices.IndexFunc(i.Config.Env, is)
	if at < 0 {
		i.Config.Env = append(i.Config.Env, name+"="+value)
		return
	}
	// Files set thousands of variables: the list is not copied for each.
	i.Config.Env[at] = name + "=" + value
	rest := slices.DeleteFunc(i.Config.Env[at+1:], is)
	i.Config.Env = i.Config.Env[:at+1+len(rest)]
}
