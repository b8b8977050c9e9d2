package buildcontext

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/stratabuild/strata/define"
)

// Times and counts of a download.
const (
	stallTimeout  = 60 * time.Second // without a byte
	attempts      = 3
	maxRetryAfter = 30 * time.Second
	maxRedirects  = 10
)

// client is shared so that connections are.
var client = &http.Client{
	Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   30 * time.Second,
		ResponseHeaderTimeout: stallTimeout,
		IdleConnTimeout:       30 * time.Second,
		ForceAttemptHTTP2:     true,
		// The bytes are the object: its digest must not depend on what the
		// server likes to compress.
		DisableCompression: true,
		// An endless header is no download (its default would be 10 MiB).
		MaxResponseHeaderBytes: 256 << 10,
	},
	CheckRedirect: checkRedirect,
}

// checkRedirect keeps credentials where they were sent. net/http drops the
// Authorization header for a foreign host, and takes user and password of a
// URL for that URL only; what is left is said here.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	first := via[0]
	if first.URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("redirected from https to %s", req.URL.Scheme)
	}
	req.Header.Del("Referer")
	if req.URL.Host != first.URL.Host {
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return nil
}

// openURL fetches a context from an http(s) URL.
func (c *Context) openURL(ctx context.Context, o *Options) ([]byte, error) {
	c.Name = displayURL(o.Location)
	body, _, err := fetch(ctx, o.Location, request{limit: o.MaxDownload, secrets: o.Secrets})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return c.unpack(ctx, o, body)
}

// DownloadOptions says how Download fetches.
type DownloadOptions struct {
	// TempDir is where the file is kept; "": TMPDIR, else /var/tmp.
	TempDir string
	// MaxBytes bounds it; 0: no limit.
	MaxBytes int64
	// Seen is a state of it that need not be fetched again.
	Seen Validator
	// Secrets may hold what the server asks for.
	Secrets Secrets
}

// Validator tells one state of what a URL names from another (RFC 9110,
// section 8.8). Both fields are as the server sent them; the zero value knows
// no state.
type Validator struct {
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
}

// Download fetches a URL for ADD into a temporary file (removed when it is
// closed): times from the response, the name from the URL. It returns nil when
// the server says that the state is still the one that was seen. A missing
// object is a define.ErrNotFound.
func Download(ctx context.Context, url string, o DownloadOptions) (*Downloaded, error) {
	header := http.Header{}
	if o.Seen.ETag != "" {
		header.Set("If-None-Match", o.Seen.ETag)
	} else if o.Seen.LastModified != "" {
		header.Set("If-Modified-Since", o.Seen.LastModified)
	}
	body, response, err := fetch(ctx, url, request{limit: o.MaxBytes, header: header, secrets: o.Secrets})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if response.StatusCode == http.StatusNotModified {
		return nil, nil //nolint:nilnil // nothing has changed
	}
	file, err := unnamedFile(o.TempDir)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	size, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(file, hash)}, body, make([]byte, 256<<10))
	if err == nil && response.ContentLength >= 0 && size != response.ContentLength {
		err = fmt.Errorf("ended after %d of %d bytes", size, response.ContentLength)
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", displayURL(url), err), file.Close())
	}
	d := &Downloaded{
		ReadSeekCloser: file,
		// The request's own URL: a redirect to a mirror changes no names.
		Name:   urlNameOf(url),
		Size:   size,
		Digest: "sha256:" + hex.EncodeToString(hash.Sum(nil)),
		State:  validator(response.Header),
	}
	if t, err := http.ParseTime(response.Header.Get("Last-Modified")); err == nil {
		d.ModTime = t.UTC().Format(time.RFC3339)
	}
	return d, nil
}

// maxValidator bounds a header field that is sent back, in bytes.
const maxValidator = 1 << 10

// validator reads what tells the response's state. A time alone does only when
// it was past: what changes twice in a second has the same.
func validator(h http.Header) Validator {
	v := Validator{ETag: h.Get("ETag"), LastModified: h.Get("Last-Modified")}
	modified, err := http.ParseTime(v.LastModified)
	sent, err2 := http.ParseTime(h.Get("Date"))
	if err != nil || err2 != nil || sent.Sub(modified) < 2*time.Second || len(v.LastModified) > maxValidator {
		v.LastModified = ""
	}
	if len(v.ETag) > maxValidator {
		v.ETag = ""
	}
	return v
}

// Downloaded is a fetched file.
type Downloaded struct {
	io.ReadSeekCloser
	Name    string // last element of the URL's path, "" when it has none
	Size    int64
	ModTime string // RFC 3339, "" when unknown
	Digest  string // sha256:...
	// State is what DownloadOptions.Seen takes; zero when the server tells none.
	State Validator
}

// File is the file itself, for reading by descriptor.
func (d *Downloaded) File() *os.File { return d.ReadSeekCloser.(*os.File) }

func urlNameOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return urlName(u)
}

// request is what a fetch needs beside the URL.
type request struct {
	limit int64 // of the body in bytes; 0: none
	// header makes the request conditional: with some, a response may have the
	// status 304 and no body.
	header        http.Header
	secrets       Secrets
	authorization string // found in secrets
}

// fetch starts a GET. Reading the body fails after limit bytes, when nothing
// arrives for a minute, and when ctx ends. Closing it is the caller's. Faults
// that pass by are tried again.
func fetch(ctx context.Context, raw string, r request) (io.ReadCloser, *http.Response, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, nil, fmt.Errorf("%s: not an http or https URL: %w", displayURL(raw), define.ErrInvalid)
	}
	u.Fragment = ""
	if r.authorization, err = r.secrets.forHTTP(u); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", displayURL(raw), err)
	}
	for n := 1; ; n++ {
		body, response, wait, err := fetchOnce(ctx, u, r)
		if err == nil {
			return body, response, nil
		}
		err = fmt.Errorf("%s: %w", displayURL(raw), err)
		if wait < 0 || n == attempts || ctx.Err() != nil {
			return nil, nil, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, err
		case <-time.After(max(wait, time.Duration(n)*500*time.Millisecond)):
		}
	}
}

// fetchOnce makes one attempt; wait is below zero when another is useless.
func fetchOnce(ctx context.Context, u *url.URL, r request) (_ io.ReadCloser, _ *http.Response, wait time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, nil, -1, errors.New("malformed URL")
	}
	request.Header.Set("User-Agent", "strata")
	request.Header.Set("Accept-Encoding", "identity")
	for name, values := range r.header {
		request.Header[name] = values
	}
	if r.authorization != "" {
		request.Header.Set("Authorization", r.authorization)
	}
	response, err := client.Do(request)
	if err != nil {
		cancel(nil)
		// url.Error repeats the URL with its user name.
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		if context.Cause(ctx) != nil && ctx.Err() != nil && !errors.Is(err, context.Canceled) {
			return nil, nil, -1, err
		}
		var network *net.OpError
		if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, nil, 0, err
		}
		return nil, nil, -1, err
	}
	unchanged := response.StatusCode == http.StatusNotModified && len(r.header) > 0
	if response.StatusCode != http.StatusOK && !unchanged {
		defer cancel(nil)
		defer response.Body.Close()
		wait, err := statusError(response)
		return nil, nil, wait, err
	}
	if r.limit > 0 && response.ContentLength > r.limit {
		cancel(nil)
		return nil, nil, -1, errors.Join(tooLarge(r.limit), response.Body.Close())
	}
	body := &body{ReadCloser: response.Body, left: r.limit, limit: r.limit, cancel: cancel}
	body.timer = time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	body.cause = func() error { return context.Cause(ctx) }
	return body, response, 0, nil
}

// statusError describes a status other than 200 in one line.
func statusError(r *http.Response) (wait time.Duration, err error) {
	text := http.StatusText(r.StatusCode)
	err = fmt.Errorf("the server answered %d %s", r.StatusCode, text)
	switch r.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		return -1, fmt.Errorf("%w: %w", err, define.ErrNotFound)
	case http.StatusUnauthorized, http.StatusForbidden:
		return -1, fmt.Errorf("%w; the URL wants credentials that it was not given (--secret id=HTTP_AUTH_TOKEN_%s), or refuses them", err, r.Request.URL.Hostname())
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if s, e := strconv.Atoi(r.Header.Get("Retry-After")); e == nil && s > 0 {
			if wait = time.Duration(min(s, 3600)) * time.Second; wait > maxRetryAfter {
				return -1, fmt.Errorf("%w and asks to wait %s", err, wait)
			}
		}
		return wait, err
	}
	return -1, err
}

var errStalled = fmt.Errorf("nothing arrived for %s", stallTimeout)

func tooLarge(limit int64) error {
	return fmt.Errorf("larger than the limit of %d bytes: %w", limit, define.ErrInvalid)
}

// body bounds a response in bytes and in silence.
type body struct {
	io.ReadCloser
	left, limit int64
	timer       *time.Timer
	cancel      context.CancelCauseFunc
	cause       func() error
}

func (b *body) Read(p []byte) (int, error) {
	if b.limit > 0 && int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	b.timer.Reset(stallTimeout)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if b.limit > 0 {
		if b.left -= int64(n); b.left < 0 {
			return 0, tooLarge(b.limit)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := b.cause(); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
