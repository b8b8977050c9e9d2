package imagebuildah

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
)

// CopyOptions describes one copy or add. It means what COPY and ADD mean,
// but for where its sources are.
type CopyOptions struct {
	StepOptions
	// Sources are files, directories and globs of the host: relative to the
	// working directory, or absolute; with ContextDir all relative to that;
	// with From relative to that root. http and https URLs are downloaded.
	// With Add git URLs are checked out, and "-" is an archive on Stdin.
	Sources []string
	// Dest is the destination; relative to the container's working directory,
	// which "" is too.
	Dest string
	// Add unpacks archives (unless Unpack is false) and takes git URLs.
	Add bool
	// From is the name or ID of a working container, whose present root is
	// meant, or an image, which is fetched when Pull says so.
	From string
	// ContextDir is where sources are and its .containerignore or
	// .dockerignore holds; IgnoreFile is read in place of those, and wants a
	// ContextDir.
	ContextDir, IgnoreFile string
	// Exclude, Chown, Chmod, Parents, Link, Checksum and KeepGitDir are the
	// flags of COPY and ADD of these names. Link makes a layer of its own: it
	// is Cached, with NoCache unless Cached was asked for.
	Exclude      []string
	Chown, Chmod string
	Parents      bool
	Link         bool
	Checksum     string
	KeepGitDir   bool
	// AllowEmpty: wildcards may match nothing, even all of them. NoFollow
	// copies symbolic links that are named as sources, not what they lead to.
	AllowEmpty, NoFollow bool
	// Unpack is ADD --unpack; nil is ADD's default: local archives are
	// unpacked, downloads are not.
	Unpack *bool
	// Stdin is what the source "-" is read from.
	Stdin io.Reader
	// NoDigest leaves Copied.Digest empty, which spares reading archives and
	// the files of images once more.
	NoDigest bool
}

// Copied is what Copy did.
type Copied struct {
	// Digest is over what was copied, as the build cache tells it: the names
	// below the destination, types, permission bits, link targets, extended
	// attributes and contents (of archives and downloads their bytes, of git
	// repositories the commit), and owners where they are kept. Neither times,
	// nor the destination, nor Chown and Chmod count, so equal inputs give
	// equal digests. buildah prints another digest over the same things.
	Digest digest.Digest
	// Cached: nothing was copied, the layer was there.
	Cached bool
}

// Copy copies files into a container (see StepOptions for what is left to the
// caller). Errors name the source, and nothing has been copied when a source
// is missing.
func Copy(ctx context.Context, c *builder.Container, o CopyOptions) (*Copied, error) {
	if o.IgnoreFile != "" && o.ContextDir == "" {
		return nil, fmt.Errorf("--ignorefile %s: its patterns are relative to a context; give that with --contextdir: %w", o.IgnoreFile, define.ErrInvalid)
	}
	if o.ContextDir != "" && o.From != "" {
		return nil, fmt.Errorf("--contextdir and --from both say where sources are; give one of them: %w", define.ErrInvalid)
	}
	t, err := o.transfer()
	if err != nil {
		return nil, err
	}
	if o.Link && !o.Cached {
		o.Cached, o.NoCache = true, true
	}
	source, err := o.openSources(t)
	if err != nil {
		return nil, err
	}
	if source != nil {
		defer source.Close()
	}
	p, err := newPrimitive(ctx, c, o.StepOptions, source)
	if err != nil {
		return nil, err
	}
	var done *Copied
	err = p.withContainers(ctx, []string{o.From}, func() (err error) {
		done, err = p.copy(ctx, &o, t)
		return err
	})
	return done, errors.Join(err, p.close())
}

// openSources opens the files of the host, when any are named; t's sources
// then are relative to it.
func (o *CopyOptions) openSources(t *transfer) (*buildcontext.Context, error) {
	if o.From != "" || len(t.sources) == 0 {
		return nil, nil
	}
	source, names, err := hostSources(o.ContextDir, o.IgnoreFile, t.sources)
	t.sources = names
	return source, err
}

// transfer is what COPY and ADD make of the same flags.
func (o *CopyOptions) transfer() (*transfer, error) {
	if len(o.Sources) == 0 {
		return nil, fmt.Errorf("no source was given: %w", define.ErrInvalid)
	}
	t := &transfer{keyword: "COPY", link: o.Link, dest: o.Dest, chown: o.Chown, chmod: o.Chmod, exclude: o.Exclude, parents: o.Parents, allowEmpty: o.AllowEmpty, noFollow: o.NoFollow, from: o.From, modTime: o.Timestamp}
	if o.Dest == "" {
		t.dest = "."
	}
	if o.Add {
		t.keyword = "ADD"
	}
	var git []string
	for _, src := range o.Sources {
		switch {
		case src == "":
			return nil, fmt.Errorf("a source is empty: %w", define.ErrInvalid)
		case src == "-" && (!o.Add || len(o.Sources) > 1 || o.Cached || o.Stdin == nil):
			return nil, fmt.Errorf("source -: standard input is taken by add alone, which unpacks it, as its only source and without --cached; a file of that name is ./- : %w", define.ErrInvalid)
		case src == "-":
			t.stream = o.Stdin
		case o.From == "" && isHTTP(src):
			t.urls = append(t.urls, src)
		case o.Add && o.From == "" && isGit(src):
			git = append(git, src)
		default:
			t.sources = append(t.sources, src)
		}
	}
	cmd := &instructions.AddCommand{Checksum: o.Checksum, Unpack: o.Unpack}
	cmd.SourcePaths = o.Sources
	if o.KeepGitDir {
		cmd.KeepGitDir = &o.KeepGitDir
	}
	err := t.remote(cmd, git)
	t.unpack = t.unpack && o.Add
	return t, err
}

func (p *primitive) copy(ctx context.Context, o *CopyOptions, t *transfer) (*Copied, error) {
	s := p.s
	in := p.instruction(t.keyword, strings.Join(append(append([]string(nil), o.Sources...), t.dest), " "))
	done := &Copied{}
	err := s.withTransfer(ctx, t, func() error {
		if p.o.Cached {
			if err := p.settle(ctx, s.transferStep(ctx, in, t)); err != nil {
				return err
			}
			done.Cached = p.b.cached.Load() > 0
		} else {
			t.hash = !t.unpack && !o.NoDigest
			if err := s.transferExec(ctx, t); err != nil {
				return err
			}
			p.history(in.Text)
		}
		if o.NoDigest {
			return nil
		}
		if err := s.sourceParts(ctx, t); err != nil {
			return err
		}
		done.Digest = t.parts.Digest()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// unpackStream extracts the archive that comes from standard input.
func (s *stage) unpackStream(ctx context.Context, t *transfer, a builder.Add) error {
	sum := digest.SHA256.Digester()
	stream := bufio.NewReaderSize(io.TeeReader(t.stream, sum.Hash()), sniffed)
	head, err := stream.Peek(sniffed)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("standard input: %w", err)
	}
	if !copier.IsArchive(head) {
		return fmt.Errorf("standard input is no archive that add can unpack; a file is copied by its name: %w", define.ErrInvalid)
	}
	a.Files = append(a.Files, builder.AddFile{Name: "stdin", Content: stream, Unpack: true})
	if err := s.c.Add(ctx, a); err != nil {
		return err
	}
	// Whoever writes is not to see a broken pipe for what follows the archive.
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	t.parts = &cache.Key{}
	t.parts.Add("archive", sum.Digest().String())
	return nil
}

// sniffed is how much of a stream tells what it is, in bytes.
const sniffed = 1 << 20
