package registrytest

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"io"
)

// Options is what kind of registry to start; the zero value is one of plain
// HTTP that lets everybody do everything.
type Options struct {
	// TLS serves HTTPS with a self-signed certificate for 127.0.0.1, ::1 and
	// localhost; see WriteCA.
	TLS bool
	// CertificateFor replaces the names in the certificate, and Expired makes
	// it one of yesterday.
	CertificateFor []string
	Expired        bool
	// Username and Password are demanded when Username is set: by HTTP Basic
	// authentication, or by Bearer tokens from /token.
	Username, Password string
	Bearer             bool
	// TokenTTL is how long a token is good for; 0: five minutes.
	TokenTTL time.Duration
	// Realm replaces the token server's URL.
	Realm string
	// NoMount refuses to mount blobs from other repositories.
	NoMount bool
}

// Request is one line of the registry's log.
type Request struct {
	Method, Path, Query string
	Header              http.Header
	Status              int
}

// Registry is a running registry. Its methods may be called at any time.
type Registry struct {
	o        Options
	host     string
	server   *http.Server
	ca       []byte
	listener net.Listener

	mu      sync.Mutex
	repos   map[string]*repo
	uploads map[string]*upload
	tokens  map[string]time.Time
	faults  []*Fault
	log     []Request
	serial  int
}

// Start starts a registry on a free port of 127.0.0.1 that ends with the
// test.
func Start(t testing.TB, o Options) *Registry {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// New starts a registry that runs until Close.
func New(o Options) (*Registry, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the test registry: %w", err)
	}
	r := &Registry{
		o: o, host: l.Addr().String(), listener: l,
		repos: map[string]*repo{}, uploads: map[string]*upload{}, tokens: map[string]time.Time{},
	}
	r.server = &http.Server{
		Handler:  http.HandlerFunc(r.serve),
		ErrorLog: log.New(io.Discard, "", 0), // refused certificates are part of the tests
	}
	if o.TLS {
		cert, pem, err := certificate(o)
		if err != nil {
			l.Close()
			return nil, err
		}
		r.ca = pem
		r.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		go r.server.ServeTLS(l, "", "") //nolint:errcheck // always ErrServerClosed
	} else {
		go r.server.Serve(l) //nolint:errcheck // always ErrServerClosed
	}
	return r, nil
}

// Close cuts all connections and stops.
func (r *Registry) Close() { r.server.Close() }

// Host is the registry's name in references: "127.0.0.1:port".
func (r *Registry) Host() string { return r.host }

// URL is the registry's address, without a path.
func (r *Registry) URL() string {
	if r.o.TLS {
		return "https://" + r.host
	}
	return "http://" + r.host
}

// WriteCA writes the certificate into dir, under the name that containers'
// --cert-dir looks for.
func (r *Registry) WriteCA(dir string) error {
	return os.WriteFile(filepath.Join(dir, "ca.crt"), r.ca, 0o644)
}

// Requests returns what was asked so far, oldest first.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

// Count counts the requests of a method ("" for any) whose path matches the
// regular expression.
func (r *Registry) Count(method, pattern string) int {
	re := regexp.MustCompile(pattern)
	n := 0
	for _, q := range r.Requests() {
		if (method == "" || q.Method == method) && re.MatchString(q.Path) {
			n++
		}
	}
	return n
}

// Forget empties the log.
func (r *Registry) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = nil
}

// status notes what was answered.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	if s.code == 0 {
		s.code = code
	}
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController through.
func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (r *Registry) serve(w http.ResponseWriter, q *http.Request) {
	s := &status{ResponseWriter: w}
	r.mu.Lock()
	at := len(r.log)
	r.log = append(r.log, Request{Method: q.Method, Path: q.URL.Path, Query: q.URL.RawQuery, Header: q.Header.Clone()})
	fault := r.nextFault(q)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if s.code == 0 {
			s.code = http.StatusOK
		}
		if at < len(r.log) {
			r.log[at].Status = s.code
		}
	}()
	if fault != nil {
		fault.serve(s, q, r.route)
		return
	}
	r.route(s, q)
}

var (
	manifestPath = regexp.MustCompile(`^/v2/(.+)/manifests/([^/]+)$`)
	blobPath     = regexp.MustCompile(`^/v2/(.+)/blobs/([^/]+)$`)
	uploadPath   = regexp.MustCompile(`^/v2/(.+)/blobs/uploads/([^/]*)$`)
	tagsPath     = regexp.MustCompile(`^/v2/(.+)/tags/list$`)
	referrerPath = regexp.MustCompile(`^/v2/(.+)/referrers/([^/]+)$`)
)

func (r *Registry) route(w http.ResponseWriter, q *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	path := q.URL.Path
	if path == "/token" {
		r.token(w, q)
		return
	}
	if !r.authorized(w, q) {
		return
	}
	switch {
	case path == "/v2/" || path == "/v2":
		answer(w, http.StatusOK, map[string]any{})
	case path == "/v2/_catalog":
		r.catalog(w)
	case uploadPath.MatchString(path):
		m := uploadPath.FindStringSubmatch(path)
		r.upload(w, q, m[1], m[2])
	case blobPath.MatchString(path):
		m := blobPath.FindStringSubmatch(path)
		r.blob(w, q, m[1], m[2])
	case manifestPath.MatchString(path):
		m := manifestPath.FindStringSubmatch(path)
		r.manifest(w, q, m[1], m[2])
	case tagsPath.MatchString(path):
		r.tags(w, q, tagsPath.FindStringSubmatch(path)[1])
	case referrerPath.MatchString(path):
		m := referrerPath.FindStringSubmatch(path)
		r.referrers(w, m[1], m[2])
	default:
		refuse(w, http.StatusNotFound, "UNSUPPORTED", "no such endpoint")
	}
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client has gone
}

// refuse answers in the form of the distribution specification, "Error codes".
func refuse(w http.ResponseWriter, status int, code, message string) {
	answer(w, status, map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}
