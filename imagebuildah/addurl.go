package imagebuildah

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
)

// maxDownload bounds what ADD fetches from one URL.
const maxDownload = 64 << 30

// urlSource is one URL of ADD. Its digest may be known, from --checksum or
// from a server that says that nothing has changed, before anything is
// downloaded.
type urlSource struct {
	url    string
	digest string
	file   *buildcontext.Downloaded // nil until it is needed
}

// urlRecord is what the cache remembers of a URL.
type urlRecord struct {
	State  buildcontext.Validator `json:"state"`
	Digest digest.Digest          `json:"digest"`
}

// urlKey names the record. A URL may hold a password: its digest stands for it.
func urlKey(address string) *cache.Key {
	k := &cache.Key{}
	k.Add("instruction", "URL")
	k.Add("url", digest.FromString(address).String())
	return k
}

// name is what the key calls the URL: its last element.
func (u *urlSource) name() string {
	parsed, err := url.Parse(u.url)
	if err != nil || parsed.Path == "" || strings.HasSuffix(parsed.Path, "/") {
		return ""
	}
	return path.Base(parsed.Path)
}

// urlParts finds the digests of what ADD names by URL and adds them to the
// key.
func (s *stage) urlParts(ctx context.Context, t *transfer, k *cache.Key) error {
	for _, u := range t.sourcesByURL() {
		if err := s.knowURL(ctx, t, u); err != nil {
			return err
		}
		k.Add("url "+u.name(), u.digest)
	}
	return s.gitParts(ctx, t, k)
}

func (t *transfer) sourcesByURL() []*urlSource {
	if len(t.downloads) == 0 {
		for _, address := range t.urls {
			t.downloads = append(t.downloads, &urlSource{url: address})
		}
	}
	return t.downloads
}

// knowURL finds a URL's digest with as little as that takes: nothing when
// --checksum says it, a request when the server says that it is as it was, else
// the download.
func (s *stage) knowURL(ctx context.Context, t *transfer, u *urlSource) error {
	switch {
	case u.digest != "":
		return nil
	case t.checksum != "":
		u.digest = t.checksum.String()
		return nil
	}
	var known urlRecord
	c, remembers := s.b.engine.Cache(), s.b.opts.layers()
	if remembers && !s.b.opts.NoCache {
		r, ok, err := c.Lookup(ctx, urlKey(u.url))
		if err != nil {
			return err
		}
		// A record that cannot be read is none.
		if ok && json.Unmarshal([]byte(r.Note), &known) != nil || known.Digest.Validate() != nil {
			known = urlRecord{}
		}
	}
	d, err := buildcontext.Download(ctx, u.url, s.b.downloads(known.State))
	if err != nil {
		return err
	}
	if d == nil {
		u.digest = known.Digest.String()
		return nil
	}
	u.file, u.digest = d, d.Digest
	if !remembers || d.State == (buildcontext.Validator{}) {
		return nil
	}
	note, err := json.Marshal(urlRecord{State: d.State, Digest: digest.Digest(d.Digest)})
	if err != nil {
		return err
	}
	slot := cache.Slot{Build: s.b.identity, Stage: s.name(), Instruction: "URL " + digest.FromString(u.url).Encoded()}
	return c.Save(ctx, slot, urlKey(u.url), cache.Result{Created: time.Now().UTC(), Note: string(note)})
}

func (b *build) downloads(seen buildcontext.Validator) buildcontext.DownloadOptions {
	return buildcontext.DownloadOptions{TempDir: b.opts.Context.TempDir, MaxBytes: maxDownload, Seen: seen, Secrets: b.secret}
}

// fetched gives the downloads as files. What no key has needed is fetched now.
func (s *stage) fetched(ctx context.Context, t *transfer) ([]builder.AddFile, error) {
	files := make([]builder.AddFile, 0, len(t.urls))
	for _, u := range t.sourcesByURL() {
		if u.file == nil {
			d, err := buildcontext.Download(ctx, u.url, s.b.downloads(buildcontext.Validator{}))
			if err != nil {
				return nil, err
			}
			u.file = d
		}
		if err := t.verify(u); err != nil {
			return nil, err
		}
		f, err := t.downloaded(u.file)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// verify compares a download with --checksum, or with what the key says.
func (t *transfer) verify(u *urlSource) error {
	got := u.file.Digest
	switch {
	case t.checksum != "" && got != t.checksum.String():
		return fmt.Errorf("%s: the download has the digest %s, not that of --checksum=%s: %w", u.name(), got, t.checksum, define.ErrInvalid)
	case u.digest != "" && got != u.digest:
		return fmt.Errorf("%s: the server said that it is unchanged, but it is not what it was; build with --no-cache: %w", u.name(), define.ErrInvalid)
	}
	u.digest = got
	return nil
}

func (t *transfer) downloaded(d *buildcontext.Downloaded) (builder.AddFile, error) {
	name := d.Name
	if name == "" {
		if !t.unpackURLs && strings.HasSuffix(t.dest, "/") {
			return builder.AddFile{}, fmt.Errorf("the URL names no file; give the destination a file name in place of %s: %w", t.dest, define.ErrInvalid)
		}
		name = "download"
	}
	when := time.Unix(0, 0)
	if d.ModTime != "" {
		var err error
		if when, err = time.Parse(time.RFC3339, d.ModTime); err != nil {
			return builder.AddFile{}, err
		}
	}
	return builder.AddFile{Name: name, Content: d, Mode: 0o600, ModTime: when, Unpack: t.unpackURLs}, nil
}

func (t *transfer) closeFiles() error {
	var err error
	for _, u := range t.downloads {
		if u.file != nil {
			err = errors.Join(err, u.file.Close())
		}
	}
	return errors.Join(err, t.closeGit())
}
