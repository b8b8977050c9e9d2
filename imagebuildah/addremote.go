package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
)

// addSource is a git repository that ADD takes its files from.
type addSource struct {
	url  *buildcontext.GitURL
	keep bool // .git too
	repo *buildcontext.Repository
}

func (a *addSource) close() error {
	if a.repo == nil {
		return nil
	}
	return a.repo.Close()
}

// remote checks and translates what ADD says about sources that are no files
// of the context.
func (t *transfer) remote(cmd *instructions.AddCommand, git []string) error {
	t.unpack = cmd.Unpack == nil || *cmd.Unpack
	t.unpackURLs = cmd.Unpack != nil && *cmd.Unpack
	if cmd.KeepGitDir != nil && *cmd.KeepGitDir && len(git) == 0 {
		return fmt.Errorf("--keep-git-dir: no source is a git repository: %w", define.ErrInvalid)
	}
	for _, text := range git {
		g, err := parseGitSource(text)
		if err != nil {
			return err
		}
		a := &addSource{url: g, keep: cmd.KeepGitDir != nil && *cmd.KeepGitDir}
		if g.KeepGitDir != nil {
			a.keep = *g.KeepGitDir
		}
		t.git = append(t.git, a)
	}
	if cmd.Checksum == "" {
		return nil
	}
	if len(t.urls) != 1 || len(cmd.SourcePaths)+len(cmd.SourceContents) != 1 {
		return fmt.Errorf("--checksum wants one source, which is an http or https URL; a git URL takes ?checksum=COMMIT: %w", define.ErrInvalid)
	}
	d, err := digest.Parse(cmd.Checksum)
	if err != nil || d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("--checksum=%s: want sha256: and 64 hex digits: %w", cmd.Checksum, define.ErrInvalid)
	}
	t.checksum = d
	return nil
}

// parseGitSource reads a git URL. One with a password is refused: the
// instruction's text becomes part of the image's history.
func parseGitSource(text string) (*buildcontext.GitURL, error) {
	g, err := buildcontext.ParseGitURL(text)
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(text); err == nil && u.User != nil {
		if _, secret := u.User.Password(); secret || !strings.HasPrefix(u.Scheme, "ssh") {
			return nil, fmt.Errorf("%s: the credentials of the URL would be part of the image's history; "+
				"use ssh, or git's credential helper: %w", g.Display(), define.ErrInvalid)
		}
	}
	return g, nil
}

// gitParts checks the repositories out and adds their commits to the key: what
// .git holds may differ from one check-out to the next.
func (s *stage) gitParts(ctx context.Context, t *transfer, k *cache.Key) error {
	for _, g := range t.git {
		if g.repo == nil {
			repo, err := buildcontext.CheckOut(ctx, g.url, buildcontext.GitOptions{TempDir: s.b.opts.Context.TempDir, KeepGitDir: g.keep, Secrets: s.b.secret})
			if err != nil {
				return err
			}
			g.repo = repo
			for _, w := range repo.Warnings {
				s.b.warn(w)
			}
		}
		k.Add("git "+g.url.Display(), g.repo.Commit)
		k.Add("--keep-git-dir", strconv.FormatBool(g.keep))
	}
	if len(t.git) > 0 {
		addList(k, "--exclude", t.exclude)
	}
	return nil
}

// checkedOut selects the repositories' files.
func (s *stage) checkedOut(ctx context.Context, t *transfer) ([]*copier.Selection, error) {
	if err := s.gitParts(ctx, t, &cache.Key{}); err != nil {
		return nil, err
	}
	list := make([]*copier.Selection, 0, len(t.git))
	for _, g := range t.git {
		sel, err := g.repo.Root().Select(ctx, copier.Select{Patterns: []string{"."}, Exclude: t.exclude})
		if err != nil {
			return nil, err
		}
		list = append(list, sel)
	}
	return list, nil
}

func (t *transfer) closeGit() error {
	var err error
	for _, g := range t.git {
		err = errors.Join(err, g.close())
	}
	return err
}
