package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

const (
	annotationBaseName   = "org.opencontainers.image.base.name"
	annotationBaseDigest = "org.opencontainers.image.base.digest"
)

// configure changes the settings, the nearest wish last.
func (m *commitChange) configure(ctx context.Context, c *builder.Container, format define.Format) error {
	img := c.Image
	img.OmitHistory = m.omitHistory
	if format == define.FormatDocker {
		// Nobody asked for them, so nobody is warned of their loss.
		delete(img.Annotations, annotationBaseName)
		delete(img.Annotations, annotationBaseDigest)
	} else if c.Base.Name != "" {
		setKey(&img.Annotations, annotationBaseName, c.Base.Name)
		setKey(&img.Annotations, annotationBaseDigest, c.Base.Digest)
	}
	if m.config != nil {
		m.config.apply(&img.Config)
	}
	if len(m.instructions) > 0 {
		if err := imagebuildah.Change(ctx, c, m.instructions); err != nil {
			return err
		}
	}
	for _, name := range m.unsetEnv {
		unsetEnv(img, name)
	}
	for _, key := range m.unsetAnnotations {
		delete(img.Annotations, key)
	}
	for _, kv := range m.annotations {
		key, value, _ := strings.Cut(kv, "=")
		setKey(&img.Annotations, key, value)
	}
	if m.identity != "" {
		setKey(&img.Config.Labels, identityLabel, m.identity)
	}
	return nil
}

// prepare is about what the image has in files that the container has not.
func (m *commitChange) prepare(ctx context.Context, c *builder.Container) error {
	if err := m.addFiles(ctx, c); err != nil {
		return err
	}
	for i := range m.sboms {
		// There is no context: what was copied is in the container.
		if err := m.sboms[i].Scan(ctx, c, nil); err != nil {
			return err
		}
	}
	return nil
}

// addFiles puts the files of --add-file into a layer of their own.
func (m *commitChange) addFiles(ctx context.Context, c *builder.Container) error {
	for _, f := range m.files {
		if err := m.addFile(ctx, c, f); err != nil {
			return fmt.Errorf("--add-file %s: %w", f.source, err)
		}
	}
	return nil
}

func (m *commitChange) addFile(ctx context.Context, c *builder.Container, f addedFile) error {
	file, err := os.Open(f.source)
	if err != nil {
		return err
	}
	defer file.Close()
	return c.Add(ctx, builder.Add{
		Dest:  f.dest,
		Files: []builder.AddFile{{Name: path.Base(f.dest), Content: file, Mode: 0o644, ModTime: time.Now()}},
	})
}

// configOverride is the file of --config: a config object as images have it.
type configOverride struct{ image.Config }

func readConfigFile(name string) (*configOverride, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, image.MaxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(data) > image.MaxDocument {
		return nil, fmt.Errorf("has more than %d bytes: %w", image.MaxDocument, define.ErrInvalid)
	}
	o := &configOverride{}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil || object == nil {
		return nil, fmt.Errorf("want a JSON object such as {\"Env\": [\"A=b\"], \"Cmd\": [\"/bin/app\"]}: %w", define.ErrInvalid)
	}
	if err := json.Unmarshal(data, &o.Config); err != nil {
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) {
			return nil, fmt.Errorf("%s: is a %s, want a %s: %w", typ.Field, typ.Value, typ.Type, define.ErrInvalid)
		}
		return nil, fmt.Errorf("%w: %w", err, define.ErrInvalid)
	}
	return o, nil
}

// apply merges maps and variables, and replaces the rest that is given.
func (o *configOverride) apply(c *image.Config) {
	img := image.Image{Config: *c}
	for _, kv := range o.Env {
		if key, value, ok := strings.Cut(kv, "="); ok {
			img.SetEnv(key, value)
		}
	}
	c.Env = img.Config.Env
	for k, v := range o.Labels {
		setKey(&c.Labels, k, v)
	}
	for k := range o.ExposedPorts {
		setKey(&c.ExposedPorts, k, struct{}{})
	}
	for k := range o.Volumes {
		setKey(&c.Volumes, k, struct{}{})
	}
	for _, s := range []struct {
		from string
		to   *string
	}{
		{o.User, &c.User}, {o.WorkingDir, &c.WorkingDir}, {o.StopSignal, &c.StopSignal},
		{o.Hostname, &c.Hostname}, {o.Domainname, &c.Domainname},
	} {
		if s.from != "" {
			*s.to = s.from
		}
	}
	if o.Entrypoint != nil {
		c.Entrypoint = o.Entrypoint
		c.Cmd = nil // it was meant for the other entry point
	}
	if o.Cmd != nil {
		c.Cmd = o.Cmd
	}
	if o.Shell != nil {
		c.Shell = o.Shell
	}
	if o.Healthcheck != nil {
		c.Healthcheck = o.Healthcheck
	}
	c.OnBuild = append(c.OnBuild, o.OnBuild...)
}
