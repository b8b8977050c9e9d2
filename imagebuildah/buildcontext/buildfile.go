package buildcontext

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// defaultNames are looked for in the context, in this order.
var defaultNames = []string{"Containerfile", "Dockerfile"}

// readBuildFiles finds and reads what -f names, or the default.
func (c *Context) readBuildFiles(ctx context.Context, o *Options, folder bool) error {
	if len(o.Files) == 0 {
		f, err := c.defaultBuildFile()
		if err != nil {
			return err
		}
		c.Files = append(c.Files, f)
	}
	stdin := false
	for _, name := range o.Files {
		if name == "-" {
			if stdin {
				return fmt.Errorf("-f - is given twice; standard input can be read once: %w", define.ErrInvalid)
			}
			stdin = true
		}
		f, err := c.readBuildFile(ctx, o, name, folder)
		if err != nil {
			return err
		}
		c.Files = append(c.Files, f)
	}
	return nil
}

// join makes one build file of several.
func (c *Context) join() error {
	names := make([]string, len(c.Files))
	contents := make([][]byte, len(c.Files))
	total := 0
	for i, f := range c.Files {
		names[i], contents[i] = f.Name, f.Content
		total += len(f.Content)
	}
	if total > MaxBuildFile {
		return fmt.Errorf("%s: larger than %d MiB together: %w", strings.Join(names, ", "), MaxBuildFile>>20, define.ErrInvalid)
	}
	c.ContainerfileName = strings.Join(names, ", ")
	c.Containerfile = contents[0]
	if len(contents) > 1 {
		c.Containerfile = bytes.Join(contents, []byte("\n"))
	}
	return nil
}

// defaultBuildFile reads the first of defaultNames in the context.
func (c *Context) defaultBuildFile() (BuildFile, error) {
	for _, name := range defaultNames {
		if info, err := c.root.Stat(name, true); err == nil && info.Mode.IsDir() {
			continue // a folder of that name is not meant
		}
		content, err := c.readBuild(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return BuildFile{}, err
		}
		return BuildFile{Name: name, Content: content, dir: c.root, base: name}, nil
	}
	text := fmt.Sprintf("no Containerfile or Dockerfile in the build context %s", c.Name)
	if near := c.nearMisses(); len(near) > 0 {
		text += fmt.Sprintf("; found %s; use -f %s", strings.Join(near, ", "), near[0])
	} else {
		text += "; name the file with -f"
	}
	return BuildFile{}, fmt.Errorf("%s: %w", text, define.ErrNotFound)
}

// nearMisses lists files of the context that look like build files.
func (c *Context) nearMisses() []string {
	dir, err := c.root.Open("/", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(10_000)
	var near []string
	for _, name := range names {
		lower := strings.ToLower(name)
		if !strings.Contains(lower, "containerfile") && !strings.Contains(lower, "dockerfile") ||
			strings.HasSuffix(lower, "ignore") || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			continue
		}
		if info, err := c.root.Stat(name, true); err == nil && info.Mode.IsRegular() {
			near = append(near, name)
		}
	}
	sort.Strings(near)
	return near[:min(len(near), 3)]
}

// readBuild reads a build file of the context; of one that is too large the
// error says where.
func (c *Context) readBuild(name string) ([]byte, error) {
	content, err := c.readContext(name, MaxBuildFile)
	if err == nil {
		return content, nil
	}
	if info, e := c.root.Stat(name, true); e != nil || !info.Mode.IsRegular() || info.Size <= MaxBuildFile {
		return nil, err
	}
	f, e := c.root.Open(name, unix.O_RDONLY)
	if e != nil {
		return nil, err
	}
	defer f.Close()
	if _, e := readLimited(f, name); e != nil {
		return nil, e
	}
	return nil, err
}

// readContext reads a file of the context, which is hostile: links are
// followed inside it only. What does not exist is fs.ErrNotExist; a link that
// leads to nothing inside is another error, as it was meant to be there.
func (c *Context) readContext(name string, limit int64) ([]byte, error) {
	return readRoot(c.root, name, limit)
}

func readRoot(root *copier.Root, name string, limit int64) ([]byte, error) {
	content, err := root.ReadFile(name, limit)
	if err == nil {
		return content, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if info, e := root.Stat(name, false); e == nil && info.Mode&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s is a symbolic link that leads to nothing inside the build context; copy its target there, or name it with -f: %w", name, define.ErrInvalid)
	}
	return nil, err
}

// readBuildFile reads one value of -f.
func (c *Context) readBuildFile(ctx context.Context, o *Options, name string, folder bool) (BuildFile, error) {
	switch {
	case name == "":
		return BuildFile{}, fmt.Errorf("-f is empty; name a file: %w", define.ErrInvalid)
	case name == "-":
		content, err := readLimited(contextReader{ctx, o.Stdin}, "standard input")
		return BuildFile{Name: "stdin", Content: content}, err
	case isHTTP(name):
		body, _, err := fetch(ctx, name, request{limit: MaxBuildFile, secrets: o.Secrets})
		if err != nil {
			return BuildFile{}, err
		}
		defer body.Close()
		content, err := readLimited(body, displayURL(name))
		return BuildFile{Name: displayURL(name), Content: content}, err
	case filepath.IsAbs(name):
		f, err := readHost(name)
		if errors.Is(err, fs.ErrNotExist) {
			return f, fmt.Errorf("build file %s does not exist: %w", name, define.ErrNotFound)
		}
		return f, err
	}
	inContext := func() (BuildFile, error) {
		content, err := c.readBuild(name)
		return BuildFile{Name: name, Content: content, dir: c.root, base: path.Clean(filepath.ToSlash(name))}, err
	}
	tries := []func() (BuildFile, error){func() (BuildFile, error) { return readHost(name) }, inContext}
	if !folder {
		// The file of a repository or archive is meant, not one that happens
		// to lie in the working folder.
		tries[0], tries[1] = tries[1], tries[0]
	}
	for _, try := range tries {
		f, err := try()
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return BuildFile{}, fmt.Errorf("build file %s is neither in the working folder nor in the build context %s: %w", name, c.Name, define.ErrNotFound)
}

// readHost reads a file that the user named. It may be a pipe, such as a
// shell's <(command); a pipe that nobody writes to is empty, not a hang.
func readHost(name string) (BuildFile, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) {
			err = fs.ErrNotExist
		}
		return BuildFile{}, fmt.Errorf("build file %s: %w", name, bare(err))
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return BuildFile{}, fmt.Errorf("build file %s: %w", name, bare(err))
	}
	if info.IsDir() {
		return BuildFile{}, fmt.Errorf("build file %s is a folder; name the file in it: %w", name, define.ErrInvalid)
	}
	content, err := readLimited(file, name)
	if err != nil {
		return BuildFile{}, err
	}
	f := BuildFile{Name: name, Content: content}
	if info.Mode().IsRegular() {
		if f.dir, err = copier.OpenRoot(filepath.Dir(name)); err == nil {
			f.base, f.own = filepath.Base(name), true
		}
	}
	return f, nil
}

func readLimited(r io.Reader, name string) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, MaxBuildFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the build file from %s: %w", name, bare(err))
	}
	if len(content) > MaxBuildFile {
		line := 1 + bytes.Count(content[:MaxBuildFile], []byte("\n"))
		return nil, fmt.Errorf("%s:%d: larger than %d MiB from this line on; is it a Containerfile? %w", name, line, MaxBuildFile>>20, define.ErrInvalid)
	}
	return content, nil
}

// ignoreSuffixes are tried in Docker's order with the neutral name first.
var ignoreSuffixes = []string{".containerignore", ".dockerignore"}

// readIgnore finds the ignore file: the one named, the first build file's
// own, or the context's.
func (c *Context) readIgnore(o *Options) error {
	if o.IgnoreFile != "" {
		return c.readNamedIgnore(o.IgnoreFile)
	}
	type place struct {
		root *copier.Root
		name string
	}
	var places []place
	if len(c.Files) > 0 && c.Files[0].dir != nil {
		f := c.Files[0]
		for _, s := range ignoreSuffixes {
			places = append(places, place{f.dir, f.base + s})
		}
	}
	for _, s := range ignoreSuffixes {
		places = append(places, place{c.root, s})
	}
	for _, p := range places {
		content, err := readRoot(p.root, p.name, MaxIgnoreFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("ignore file %s: %w", p.name, err)
		}
		c.IgnoreName = p.name
		c.ignore, err = ParseIgnore(p.name, content)
		return err
	}
	return nil
}

// readNamedIgnore reads --ignorefile, from the working folder or the context.
func (c *Context) readNamedIgnore(name string) error {
	content, err := readHostIgnore(name)
	if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(name) {
		content, err = c.readContext(name, MaxIgnoreFile)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ignore file %s is neither in the working folder nor in the build context %s: %w", name, c.Name, define.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("ignore file %s: %w", name, err)
	}
	c.IgnoreName = name
	c.ignore, err = ParseIgnore(name, content)
	return err
}

func readHostIgnore(name string) ([]byte, error) {
	f, err := readHost(name)
	if err != nil {
		return nil, err
	}
	if f.own {
		err = f.dir.Close()
	}
	return f.Content, err
}
