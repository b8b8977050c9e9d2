package imagebuildah

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// OutputTypes are the values of --output type=.
var OutputTypes = []string{"image", "registry", "oci", "docker", "tar", "local"}

func checkOutputs(outputs []Output) error {
	for _, o := range outputs {
		known := false
		for _, t := range OutputTypes {
			known = known || t == o.Type
		}
		switch {
		case !known:
			return fmt.Errorf("output type %q: want one of %s: %w", o.Type, strings.Join(OutputTypes, ", "), define.ErrInvalid)
		case o.Type == "local" && (o.Dest == "" || o.Dest == "-"):
			return fmt.Errorf("output type=local: want dest=DIRECTORY: %w", define.ErrInvalid)
		case o.Dest == "" && (o.Type == "oci" || o.Type == "docker" || o.Type == "tar"):
			return fmt.Errorf("output type=%s: want dest=FILE, or dest=- for standard output: %w", o.Type, define.ErrInvalid)
		}
	}
	return nil
}

// toStore reports whether the image is to be named in the store.
func (b *build) toStore() bool {
	for _, o := range b.opts.Outputs {
		if o.Type == "image" || o.Type == "registry" {
			return true
		}
	}
	return len(b.opts.Outputs) == 0
}

// writeOutputs writes every output but the store's record, which is there.
func (b *build) writeOutputs(ctx context.Context, s *stage, r *Result) error {
	r.Pushed = map[string]digest.Digest{}
	for _, tag := range b.opts.Tags {
		if transport.IsTransport(tag) {
			if err := b.push(ctx, r, tag, b.opts.Push); err != nil {
				return err
			}
		}
	}
	for _, o := range b.opts.Outputs {
		if err := b.writeOutput(ctx, s, r, o); err != nil {
			return fmt.Errorf("output type=%s: %w", o.Type, err)
		}
	}
	return nil
}

func (b *build) writeOutput(ctx context.Context, s *stage, r *Result, o Output) error {
	switch o.Type {
	case "image", "registry":
		if o.Type == "registry" || o.Attrs["push"] == "true" {
			return b.pushNames(ctx, r, o)
		}
		return nil
	case "oci", "docker":
		return b.writeArchive(ctx, r, o)
	case "tar":
		return toFile(o.Dest, func(w io.Writer) error {
			return s.c.View(ctx, func(root *copier.Root) error { return root.Tar(ctx, "/", w) })
		})
	}
	return b.writeLocal(ctx, s, o.Dest)
}

func (b *build) push(ctx context.Context, r *Result, dest string, o transport.PushOptions) error {
	d, err := b.engine.Transport().Push(ctx, r.ImageID, dest, o)
	if err != nil {
		return err
	}
	r.Pushed[dest] = d
	return nil
}

// pushNames sends the image to the registries that its names say.
func (b *build) pushNames(ctx context.Context, r *Result, o Output) error {
	names := r.Names
	if n := o.Attrs["name"]; n != "" {
		names = strings.Split(n, ",")
	}
	if len(names) == 0 {
		return fmt.Errorf("nothing says where to push to: give -t REGISTRY/NAME: %w", define.ErrInvalid)
	}
	for _, n := range names {
		how := b.opts.Push
		how.Compression = cmp.Or(o.Attrs["compression"], how.Compression)
		if err := b.push(ctx, r, "docker://"+n, how); err != nil {
			return err
		}
	}
	return nil
}

// writeArchive writes an oci-archive or docker-archive; standard output gets
// it through a temporary file, since archives are written in two passes.
func (b *build) writeArchive(ctx context.Context, r *Result, o Output) error {
	ref := ""
	if len(b.opts.Tags) > 0 {
		full, err := transport.NormalizeTag(b.opts.Tags[0])
		if err != nil {
			return err
		}
		ref = ":" + full
	}
	if o.Dest != "-" {
		return b.push(ctx, r, o.Type+"-archive:"+o.Dest+ref, b.opts.Push)
	}
	private, err := b.engine.PrivateDir(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(private, "output-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "archive.tar")
	if err := b.push(ctx, r, o.Type+"-archive:"+path+ref, b.opts.Push); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(os.Stdout, f)
	return err
}

// toFile writes beside dest and renames, so that a failure leaves the old
// file as it was.
func toFile(dest string, write func(io.Writer) error) error {
	if dest == "-" {
		return write(os.Stdout)
	}
	// As for archives and directories.
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(dest), "."+filepath.Base(dest)+".")
	if err != nil {
		// The temporary name says nothing to the user.
		if at := (*fs.PathError)(nil); errors.As(err, &at) {
			err = at.Err
		}
		return fmt.Errorf("%s: %w", dest, err)
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), dest)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// writeLocal copies the root's files into a directory of the host.
func (b *build) writeLocal(ctx context.Context, s *stage, dest string) error {
	if err := os.MkdirAll(dest, 0o755); err != nil {
		return err
	}
	to, err := copier.OpenRoot(dest)
	if err != nil {
		return err
	}
	put := copier.Put{Dest: "/", IgnoreChownErrors: true}
	if b.engine.Rootless() {
		// Ids of the image would be sub-ids on the host, which its user
		// could not remove.
		put.Owner = &copier.Owner{}
	}
	err = s.c.View(ctx, func(root *copier.Root) error {
		selection, err := root.Select(ctx, copier.Select{Patterns: []string{"."}})
		if err != nil {
			return err
		}
		return selection.Put(ctx, to, put)
	})
	return errors.Join(err, to.Close())
}
