package imagebuildah_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/imagebuildah"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
)

// served is a server of one file that counts what it is asked for.
type served struct {
	mu       sync.Mutex
	content  string
	etag     string
	modified time.Time
	log      []string
}

func (s *served) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.etag != "" {
		w.Header().Set("ETag", s.etag)
	}
	rec := httptest.NewRecorder()
	for k, v := range w.Header() {
		rec.Header()[k] = v
	}
	http.ServeContent(rec, r, "", s.modified, strings.NewReader(s.content))
	s.log = append(s.log, fmt.Sprint(rec.Code))
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// take returns the status codes since the last call.
func (s *served) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	return log
}

func (s *served) set(content, etag string, modified time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content, s.etag, s.modified = content, etag, modified
}

// A build whose URLs are unchanged downloads nothing.
func TestAddURLUnchanged(t *testing.T) {
	e, _ := openEngine(t)
	s := &served{}
	server := httptest.NewServer(s)
	defer server.Close()
	past := time.Now().Add(-time.Hour)
	just := time.Now().Add(time.Minute) // not past when it is asked for, however long this takes
	build := func(file string, o imagebuildah.Options) *imagebuildah.Result {
		t.Helper()
		o.Context = buildcontext.Options{Location: write(t, t.TempDir(), "Containerfile="+file)}
		r, err := imagebuildah.Build(context.Background(), e, o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, c := range []struct {
		name, content, etag string
		modified            time.Time
		noCache             bool
		cached              int
		want                []string
	}{
		{"first", "one", `"1"`, time.Time{}, false, 0, []string{"200"}},
		{"again", "one", `"1"`, time.Time{}, false, 1, []string{"304"}},
		{"changed", "two", `"2"`, time.Time{}, false, 0, []string{"200"}},
		{"changed again", "two", `"2"`, time.Time{}, false, 1, []string{"304"}},
		{"another tag for the same", "two", `"3"`, time.Time{}, false, 1, []string{"200"}},
		{"without the cache", "two", `"3"`, time.Time{}, true, 0, []string{"200"}},
		{"by time", "three", "", past, false, 0, []string{"200"}},
		{"by time again", "three", "", past, false, 1, []string{"304"}},
		{"just changed", "four", "", just, false, 0, []string{"200"}},
		{"just changed again", "five", "", just, false, 0, []string{"200"}},
		{"neither", "six", "", time.Time{}, false, 0, []string{"200"}},
		{"neither again", "six", "", time.Time{}, false, 1, []string{"200"}},
	} {
		s.set(c.content, c.etag, c.modified)
		r := build("FROM scratch\nADD "+server.URL+"/dir/f /f\n", imagebuildah.Options{NoCache: c.noCache})
		if got := s.take(); !reflect.DeepEqual(got, c.want) || r.Cached != c.cached {
			t.Errorf("%s: answers %v, cached %d", c.name, got, r.Cached)
		}
	}
	// A step that is executed needs the content, which is fetched then.
	s.set("seven", `"7"`, time.Time{})
	build("FROM scratch\nADD "+server.URL+"/f /f\n", imagebuildah.Options{})
	s.take()
	build("FROM scratch\nADD "+server.URL+"/f /elsewhere\n", imagebuildah.Options{})
	if got := s.take(); !reflect.DeepEqual(got, []string{"304", "200"}) {
		t.Errorf("elsewhere: %v", got)
	}
	// With --checksum nothing is asked when the step is known.
	line := "ADD --checksum=" + digest.FromString("seven").String() + " " + server.URL + "/f /sum\n"
	build("FROM scratch\n"+line, imagebuildah.Options{})
	if got := s.take(); !reflect.DeepEqual(got, []string{"200"}) {
		t.Errorf("checksum: %v", got)
	}
	build("FROM scratch\n"+line, imagebuildah.Options{})
	if got := s.take(); got != nil {
		t.Errorf("checksum again: %v", got)
	}
}

// A server that says "unchanged" of what has changed is found out.
func TestAddURLLies(t *testing.T) {
	e, _ := openEngine(t)
	s := &served{content: "was", etag: `"same"`}
	server := httptest.NewServer(s)
	defer server.Close()
	build := func(dest string) error {
		_, err := imagebuildah.Build(context.Background(), e, imagebuildah.Options{
			Context: buildcontext.Options{Location: write(t, t.TempDir(), "Containerfile=FROM scratch\nADD "+server.URL+"/lie "+dest+"\n")}})
		return err
	}
	if err := build("/a"); err != nil {
		t.Fatal(err)
	}
	s.set("is", `"same"`, time.Time{})
	if err := build("/b"); err == nil || !strings.Contains(err.Error(), "--no-cache") {
		t.Errorf("another content under the same tag: %v", err)
	}
}

func TestAddURLUnpack(t *testing.T) {
	e, _ := openEngine(t)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "d/f", Mode: 0o640, Size: 2, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := &served{content: archive.String()}
	server := httptest.NewServer(s)
	defer server.Close()
	c := from(t, e, "scratch")
	yes, no := true, false
	for dest, unpack := range map[string]*bool{"/default/": nil, "/yes/": &yes, "/no/": &no} {
		o := imagebuildah.CopyOptions{Add: true, Sources: []string{server.URL + "/a.tar"}, Dest: dest, Unpack: unpack}
		if _, err := imagebuildah.Copy(context.Background(), c, o); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"/default/a.tar": s.content, "/no/a.tar": s.content, "/yes/d/f": "hi", "/yes/a.tar": "-"} {
		if got := read(t, c, name); got != want {
			t.Errorf("%s: %.10q", name, got)
		}
	}
	o := imagebuildah.CopyOptions{Add: true, Sources: []string{server.URL}, Dest: "/named"}
	if _, err := imagebuildah.Copy(context.Background(), c, o); err != nil || read(t, c, "/named") != s.content {
		t.Errorf("a URL without a name: %v", err)
	}
}
