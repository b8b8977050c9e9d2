package buildcontext

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/cpp"
	"golang.org/x/sys/unix"
)

// preprocess runs build files that end in ".in" through the C preprocessor.
// What they include lies in the context.
func (c *Context) preprocess(ctx context.Context, o *Options) error {
	for i := range c.Files {
		f := &c.Files[i]
		if !strings.HasSuffix(f.Name, ".in") {
			continue
		}
		flags, err := cpp.ParseFlags(o.CPPFlags)
		if err != nil {
			return err
		}
		out, warnings, err := cpp.Process(ctx, cpp.Options{Name: f.Name, Dir: c.dirOf(f), Flags: flags, Read: c.readIncluded}, f.Content)
		if err != nil {
			return err
		}
		f.Content = out
		c.Warnings = append(c.Warnings, warnings...)
	}
	return nil
}

// dirOf is the directory of a build file below the context's root, "" when it
// lies elsewhere: what is beside it there is not part of the context.
func (c *Context) dirOf(f *BuildFile) string {
	name := f.base
	if f.own {
		abs, err := filepath.Abs(f.Name)
		if err != nil {
			return ""
		}
		if name, err = filepath.Rel(c.Name, abs); err != nil {
			return ""
		}
	}
	dir := path.Dir(filepath.ToSlash(name))
	if !filepath.IsLocal(dir) || dir == "." {
		return ""
	}
	return dir
}

// readIncluded reads a file of the context for #include, whose search passes
// by directories. A link that leads to nothing inside was meant to be there.
func (c *Context) readIncluded(name string) ([]byte, error) {
	content, err := c.root.ReadFile(name, MaxBuildFile)
	if err == nil {
		return content, nil
	}
	if info, e := c.root.Stat(name, true); e == nil && info.Mode.IsDir() || errors.Is(err, unix.ENOTDIR) {
		return nil, fs.ErrNotExist
	}
	if info, e := c.root.Stat(name, false); errors.Is(err, fs.ErrNotExist) && e == nil && info.Mode&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s is a symbolic link that leads out of the build context; copy its target there: %w", name, define.ErrEscape)
	}
	return nil, err
}
