package imagebuildah

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// transfer is one COPY or ADD: what both have in common.
type transfer struct {
	// in is the instruction, of a build file: there wildcards may match
	// nothing, as in BuildKit, and a warning says so.
	in       *containerfile.Instruction
	keyword  string
	sources  []string
	contents []instructions.SourceContent
	dest     string
	chown    string
	chmod    string
	exclude  []string
	parents  bool
	// allowEmpty and noFollow are those of CopyOptions.
	allowEmpty, noFollow bool
	unpack               bool
	// unpackURLs unpacks archives that were downloaded, too.
	unpackURLs bool
	link       bool
	hash       bool // compute digests while copying
	mode       func(fs.FileMode) fs.FileMode
	modTime    *time.Time
	stream     io.Reader // an archive; the only source
	from       string
	urls       []string
	git        []*addSource
	checksum   digest.Digest // of the only URL; "" is any

	owner     *copier.Owner // what --chown says, once known
	base      *cache.Key    // what counts besides the sources
	origin    *origin       // where sources are taken from, once opened
	picked    *copier.Selection
	parts     *cache.Key // what is known of the sources' contents
	downloads []*urlSource
}

func (s *stage) copy(ctx context.Context, in *containerfile.Instruction, cmd *instructions.CopyCommand) error {
	return s.transfer(ctx, in, &transfer{in: in, keyword: "COPY", link: cmd.Link, sources: cmd.SourcePaths, contents: cmd.SourceContents, dest: cmd.DestPath,
		allowEmpty: true, chown: cmd.Chown, chmod: cmd.Chmod, exclude: cmd.ExcludePatterns, parents: cmd.Parents, from: cmd.From})
}

func (s *stage) add(ctx context.Context, in *containerfile.Instruction, cmd *instructions.AddCommand) error {
	cmd, err := s.b.opts.allowedAdd(cmd)
	if err != nil {
		return err
	}
	t := &transfer{in: in, keyword: "ADD", link: cmd.Link, contents: cmd.SourceContents, dest: cmd.DestPath,
		allowEmpty: true, chown: cmd.Chown, chmod: cmd.Chmod, exclude: cmd.ExcludePatterns}
	if err := t.remote(cmd, t.sort(cmd.SourcePaths)); err != nil {
		return err
	}
	return s.transfer(ctx, in, t)
}

// sort tells files and URLs apart, and returns the git repositories.
func (t *transfer) sort(sources []string) (git []string) {
	for _, src := range sources {
		switch {
		case isHTTP(src):
			t.urls = append(t.urls, src)
		case isGit(src):
			git = append(git, src)
		default:
			t.sources = append(t.sources, src)
		}
	}
	return git
}

func isHTTP(src string) bool {
	if !strings.HasPrefix(src, "http://") && !strings.HasPrefix(src, "https://") {
		return false
	}
	u, err := url.Parse(src)
	return err == nil && !strings.HasSuffix(u.Path, ".git")
}

func isGit(src string) bool {
	return strings.HasPrefix(src, "git://") || strings.HasPrefix(src, "git@") || strings.HasPrefix(src, "ssh://") ||
		((strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://")) && !isHTTP(src))
}

// transfer finds the sources, forms the keys and copies.
func (s *stage) transfer(ctx context.Context, in *containerfile.Instruction, t *transfer) error {
	return s.withTransfer(ctx, t, func() error { return s.transferStep(ctx, in, t) })
}

// withTransfer checks the flags and holds the sources open for f.
func (s *stage) withTransfer(ctx context.Context, t *transfer, f func() error) (err error) {
	if t.mode, err = parseChmod(t.chmod); err != nil {
		return err
	}
	if len(t.sources)+len(t.contents)+len(t.urls)+len(t.git) > 1 && !strings.HasSuffix(builder.AbsDest("/", t.dest), "/") {
		return fmt.Errorf("several sources need a directory as destination, which ends in a slash: write %s/: %w", t.dest, define.ErrInvalid)
	}
	if t.origin, err = s.openOrigin(ctx, t.from); err != nil {
		return err
	}
	defer t.origin.close()
	defer t.closeFiles()
	return f()
}

func (s *stage) transferStep(ctx context.Context, in *containerfile.Instruction, t *transfer) error {
	if t.link {
		// What the key says must be all that the base has to do with it.
		if err := s.transferOwner(ctx, t); err != nil {
			return err
		}
	}
	t.base = s.transferKey(t)
	// Files are read once: what is copied is hashed on the way when no look-up
	// needs the digests before. Archives are unpacked, not copied.
	t.hash = !s.looksUp(t.link) && s.b.opts.layers() && !t.unpack
	f := fsStep{in: in, linked: t.link, keyAfter: t.hash, createdBy: in.Text, exec: func(ctx context.Context, _ *define.Step) (bool, error) {
		return true, s.transferExec(ctx, t)
	}}
	if t.hash {
		f.here = t.here()
	}
	if t.origin.quick != nil {
		f.keys = append(f.keys, func(ctx context.Context) (*cache.Key, error) { return t.quickKey(ctx) })
	}
	f.keys = append(f.keys, func(ctx context.Context) (*cache.Key, error) { return s.contentKey(ctx, t) })
	return s.layerStep(ctx, f)
}

func (s *stage) transferExec(ctx context.Context, t *transfer) error {
	if err := s.materialize(ctx); err != nil {
		return err
	}
	a := builder.Add{Dest: t.dest, Mode: t.mode, ModTime: t.modTime, Unpack: t.unpack, Hash: t.hash, KeepOwner: t.origin.keepOwner}
	if err := s.transferOwner(ctx, t); err != nil {
		return err
	}
	a.Owner = t.owner
	if err := s.pick(ctx, t, nil); err != nil {
		return err
	}
	if t.picked != nil {
		a.Selections = []*copier.Selection{t.picked}
	}
	for _, c := range t.contents {
		a.Files = append(a.Files, builder.BytesFile(c.Path, []byte(c.Data), 0o644))
	}
	files, err := s.fetched(ctx, t)
	if err != nil {
		return err
	}
	a.Files = append(a.Files, files...)
	repositories, err := s.checkedOut(ctx, t)
	if err != nil {
		return err
	}
	a.Selections = append(a.Selections, repositories...)
	if t.stream != nil {
		return s.unpackStream(ctx, t, a)
	}
	if t.link {
		return s.c.AddLinked(ctx, a)
	}
	return s.c.Add(ctx, a)
}

// transferOwner finds the numbers that --chown means. Only names need the
// container's root.
func (s *stage) transferOwner(ctx context.Context, t *transfer) error {
	if t.chown == "" || t.owner != nil {
		return nil
	}
	var owner copier.Owner
	find := func(root *copier.Root) (err error) {
		owner, err = root.Owner(t.chown)
		return err
	}
	if strings.Trim(t.chown, "0123456789:") == "" {
		// No file is read.
		if err := find(nil); err != nil {
			return fmt.Errorf("--chown: %w", err)
		}
		t.owner = &owner
		return nil
	}
	if err := s.materialize(ctx); err != nil {
		return err
	}
	if err := s.c.View(ctx, find); err != nil {
		return fmt.Errorf("--chown: %w", err)
	}
	t.owner = &owner
	return nil
}

// pick expands the sources, once, and digests them on the way as digest says;
// nil does not.
func (s *stage) pick(ctx context.Context, t *transfer, digest *copier.DigestOptions) error {
	if t.picked != nil || len(t.sources) == 0 {
		return nil
	}
	root, err := t.origin.open(ctx)
	if err != nil {
		return err
	}
	t.picked, err = root.Select(ctx, copier.Select{Patterns: t.sources, Ignore: t.origin.ignore, Exclude: t.exclude, Parents: t.parents,
		NoFollow: t.noFollow, AllowEmpty: t.allowEmpty, Digest: digest})
	if err == nil && t.in != nil && len(t.picked.Sources()) == 0 {
		why := strings.TrimSuffix(t.picked.Missing().Error(), ": "+define.ErrNotFound.Error())
		s.emit(define.Event{Kind: define.EventWarning, Text: t.keyword + ": " + why + ": nothing is copied", File: t.in.File, Line: t.in.Line})
	}
	return err
}

// transferKey holds what counts besides the sources.
func (s *stage) transferKey(t *transfer) *cache.Key {
	k := s.baseKey(t.keyword)
	k.Add("destination", builder.AbsDest(s.c.Image.Config.WorkingDir, t.dest))
	if t.link {
		k.Add("--link", "true")
	}
	if t.link && t.owner != nil {
		k.Add("--chown", fmt.Sprintf("%d:%d", t.owner.UID, t.owner.GID))
	} else {
		k.Add("--chown", t.chown)
	}
	k.Add("--chmod", t.chmod)
	if t.noFollow {
		k.Add("--no-follow-symlinks", "true")
	}
	if t.parents {
		k.Add("--parents", "true")
	}
	if t.keyword == "ADD" && !t.unpack {
		k.Add("--unpack", "false")
	}
	if t.unpackURLs && len(t.urls) > 0 {
		k.Add("--unpack", "true")
	}
	for _, c := range t.contents {
		k.Add("heredoc "+c.Path, c.Data)
	}
	return k
}

// here tells the step from others of this run by the names of its sources,
// since all stages see the same root under one name; nil where they may not.
func (t *transfer) here() *cache.Key {
	if t.origin.here == "" || t.stream != nil || len(t.urls)+len(t.git) > 0 {
		return nil
	}
	k := copyKey(t.base)
	k.Add("root in this run", t.origin.here)
	addList(k, "source", t.sources)
	addList(k, "--exclude", t.exclude)
	return k
}

// quickKey tells sources by the layer they lie in: no file is looked at. It
// may be asked for while the stage goes on, so it reads nothing of the stage.
func (t *transfer) quickKey(ctx context.Context) (*cache.Key, error) {
	id, err := t.origin.quick(ctx)
	if err != nil {
		return nil, err
	}
	k := copyKey(t.base)
	k.Add("from", string(id))
	addList(k, "source", t.sources)
	addList(k, "--exclude", t.exclude)
	return k, nil
}

// contentKey tells sources by their contents.
func (s *stage) contentKey(ctx context.Context, t *transfer) (*cache.Key, error) {
	if err := s.sourceParts(ctx, t); err != nil {
		return nil, err
	}
	return addParts(copyKey(t.base), t.parts), nil
}

// sourceParts reads what the sources hold, once.
func (s *stage) sourceParts(ctx context.Context, t *transfer) error {
	if t.parts != nil {
		return nil
	}
	k := &cache.Key{}
	o := copier.DigestOptions{KeepOwner: t.origin.keepOwner && t.chown == "", Index: t.origin.index}
	if err := s.pick(ctx, t, &o); err != nil {
		return err
	}
	if t.picked != nil {
		// Several sources and one source lie differently below the same
		// destination, so their number counts.
		k.Add("sources", strconv.Itoa(len(t.picked.Sources())))
		files, err := t.picked.Digests(ctx, o)
		if err != nil {
			return err
		}
		k.AddFiles(cache.PartFile, files)
	}
	if err := s.urlParts(ctx, t, k); err != nil {
		return err
	}
	t.parts = k
	return nil
}
