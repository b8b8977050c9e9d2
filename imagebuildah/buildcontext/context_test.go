package buildcontext

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// write makes a tree: name to content; "-> target" makes a link, a name that
// ends in a slash a folder.
func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		target, link := strings.CutPrefix(content, "-> ")
		switch {
		case link:
			err = os.Symlink(target, p)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(p, 0o755)
		default:
			err = os.WriteFile(p, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t *testing.T, o Options) (*Context, error) {
	t.Helper()
	if o.TempDir == "" {
		o.TempDir = t.TempDir()
		t.Cleanup(func() {
			if left, _ := os.ReadDir(o.TempDir); len(left) > 0 {
				t.Errorf("left in the temporary folder: %v", left)
			}
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	c, err := Open(ctx, o)
	if err == nil {
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return c, err
}

func TestFolder(t *testing.T) {
	t.Parallel()
	outside := write(t, t.TempDir(), map[string]string{"secret": "TOKEN", "Other": "FROM other"})
	for name, c := range map[string]struct {
		files map[string]string
		o     Options
		want  string // of the build file
		from  string
		names string // the ignore file
		err   string
	}{
		"containerfile first": {files: map[string]string{"Containerfile": "C", "Dockerfile": "D"}, want: "C", from: "Containerfile"},
		"dockerfile":          {files: map[string]string{"Dockerfile": "D", ".dockerignore": "x"}, want: "D", from: "Dockerfile", names: ".dockerignore"},
		"folder of name":      {files: map[string]string{"Containerfile/": "", "Dockerfile": "D"}, want: "D", from: "Dockerfile"},
		"link inside":         {files: map[string]string{"Dockerfile": "-> sub/D", "sub/D": "D"}, want: "D", from: "Dockerfile"},
		"link to absolute":    {files: map[string]string{"Dockerfile": "-> " + outside + "/secret"}, err: "Dockerfile is a symbolic link that leads to nothing inside the build context"},
		"link outside":        {files: map[string]string{"Dockerfile": "-> ../../../../.." + outside + "/secret"}, err: "Dockerfile is a symbolic link"},
		"nothing":             {files: map[string]string{"a": ""}, err: "no Containerfile or Dockerfile in the build context"},
		"near miss":           {files: map[string]string{"Dockerfile.txt": "D", "dockerfile": "d", "x.dockerignore": ""}, err: "; found Dockerfile.txt, dockerfile; use -f Dockerfile.txt: not found"},
		"named in context":    {files: map[string]string{"sub/F": "F", "Containerfile": "C"}, o: Options{Files: []string{"sub/F"}}, want: "F", from: "sub/F"},
		"named outside":       {o: Options{Files: []string{outside + "/Other"}}, want: "FROM other", from: outside + "/Other"},
		"several":             {files: map[string]string{"A": "a", "B": "b"}, o: Options{Files: []string{"A", "B"}}, want: "a\nb", from: "A, B"},
		"named missing":       {o: Options{Files: []string{"nope"}}, err: "build file nope is neither in the working folder nor in the build context"},
		"absolute missing":    {o: Options{Files: []string{outside + "/nope"}}, err: "build file " + outside + "/nope does not exist"},
		"a folder":            {o: Options{Files: []string{outside}}, err: "is a folder"},
		"stdin file":          {o: Options{Files: []string{"-"}, Stdin: strings.NewReader("S")}, want: "S", from: "stdin"},
		"stdin twice":         {o: Options{Files: []string{"-", "-"}, Stdin: strings.NewReader("S")}, err: "-f - is given twice"},
		"own ignore":          {files: map[string]string{"D": "d", "D.dockerignore": "x", ".dockerignore": "y", ".containerignore": "z"}, o: Options{Files: []string{"D"}}, want: "d", from: "D", names: "D.dockerignore"},
		"neutral first":       {files: map[string]string{"Dockerfile": "d", "Dockerfile.containerignore": "x", "Dockerfile.dockerignore": "x"}, want: "d", from: "Dockerfile", names: "Dockerfile.containerignore"},
		"general neutral":     {files: map[string]string{"Dockerfile": "d", ".containerignore": "x", ".dockerignore": "x"}, want: "d", from: "Dockerfile", names: ".containerignore"},
		"named ignore":        {files: map[string]string{"Dockerfile": "d", ".containerignore": "x", "ig": "x"}, o: Options{IgnoreFile: "ig"}, want: "d", from: "Dockerfile", names: "ig"},
		"ignore missing":      {files: map[string]string{"Dockerfile": "d"}, o: Options{IgnoreFile: "ig"}, err: "ignore file ig is neither in the working folder"},
		"ignore is link out":  {files: map[string]string{"Dockerfile": "d", ".dockerignore": "-> " + outside + "/secret"}, err: "ignore file .dockerignore: .dockerignore is a symbolic link"},
		"ignore is folder":    {files: map[string]string{"Dockerfile": "d", ".dockerignore/": ""}, err: "ignore file .dockerignore: "},
		"ignore is bad":       {files: map[string]string{"Dockerfile": "d", ".dockerignore": "a\n["}, err: ".dockerignore:2: bad pattern"},
		"ignore is huge":      {files: map[string]string{"Dockerfile": "d", ".dockerignore": strings.Repeat("#", MaxIgnoreFile+1)}, err: "ignore file .dockerignore: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := c.o
			o.Location = write(t, t.TempDir(), c.files)
			got, err := open(t, o)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "TOKEN") || strings.Contains(err.Error(), "\n") {
					t.Fatalf("error %v; want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Containerfile) != c.want || got.ContainerfileName != c.from || got.IgnoreName != c.names {
				t.Errorf("%q from %s, ignoring %s", got.Containerfile, got.ContainerfileName, got.IgnoreName)
			}
			if (got.Ignore() == nil) != (c.names == "") {
				t.Errorf("Ignore: %v", got.Ignore())
			}
		})
	}
}

func TestFolderErrors(t *testing.T) {
	t.Parallel()
	dir := write(t, t.TempDir(), map[string]string{"file": "x", "locked/": ""})
	for location, want := range map[string]string{
		dir + "/nope": "does not exist; name a folder, a URL, or - for standard input",
		dir + "/file": "is not a folder; to build with",
	} {
		_, err := open(t, Options{Location: location})
		if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(want, "build with", "build from that file write -f")) {
			t.Errorf("%s: %v", location, err)
		}
	}
	if os.Geteuid() == 0 {
		return // root may read everything
	}
	if err := os.Chmod(dir+"/locked", 0o311); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, Options{Location: dir + "/locked"}); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("unreadable: %v", err)
	}
}

// FIFOs are neither opened nor waited for.
func TestFIFO(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Dockerfile", ".dockerignore"} {
		dir := write(t, t.TempDir(), map[string]string{"Containerfile.x": "FROM x"})
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
		o := Options{Location: dir}
		if name != "Dockerfile" {
			o.Files = []string{"Containerfile.x"}
		}
		if _, err := open(t, o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A build file may be a pipe that the user names, as a shell's <(command) is.
func TestPipe(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(w, "FROM pipe")
		_ = w.Close()
	}()
	c, err := open(t, Options{Location: t.TempDir(), Files: []string{"/proc/self/fd/" + itoa(int(r.Fd()))}})
	if err != nil || string(c.Containerfile) != "FROM pipe" {
		t.Errorf("%v", err)
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

// archive makes a tar of name to content; "-> x" is a link.
func archive(t *testing.T, files ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1])), Typeflag: tar.TypeReg}
		target, link := strings.CutPrefix(f[1], "-> ")
		if link {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if !link {
			_, _ = io.WriteString(w, f[1])
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func TestStdin(t *testing.T) {
	t.Parallel()
	canary := write(t, t.TempDir(), map[string]string{"canary": "TOKEN"})
	for name, c := range map[string]struct {
		in   []byte
		o    Options
		want string
		err  string
	}{
		"tar":        {in: archive(t, [2]string{"Dockerfile", "D"}, [2]string{"a", "b"}), want: "D"},
		"gzip":       {in: gz(archive(t, [2]string{"./Containerfile", "C"})), want: "C"},
		"file":       {in: []byte("FROM scratch\n"), want: "FROM scratch\n"},
		"empty":      {err: "the build context from stdin is empty"},
		"zip":        {in: []byte("PK\x03\x04xxxx"), err: "is a zip archive"},
		"binary":     {in: []byte("FROM x\x00"), err: "neither a tar archive nor a Containerfile"},
		"huge text":  {in: bytes.Repeat([]byte("#\n"), MaxBuildFile), err: "neither a tar archive nor a Containerfile"},
		"broken":     {in: []byte("\x1f\x8bFROM x"), err: "build context from stdin: "},
		"truncated":  {in: gz(archive(t, [2]string{"Dockerfile", strings.Repeat("D", 100_000)}))[:100], err: "build context from stdin: "},
		"escape":     {in: archive(t, [2]string{"../canary", "OWNED"}, [2]string{"Dockerfile", "D"}), err: "", want: "D"},
		"link":       {in: archive(t, [2]string{"Dockerfile", "-> " + canary + "/canary"}), err: "Dockerfile is a symbolic link"},
		"through":    {in: archive(t, [2]string{"d", "-> " + canary}, [2]string{"d/canary", "OWNED"}, [2]string{"Dockerfile", "D"}), want: "D"},
		"named":      {in: archive(t, [2]string{"sub/F", "F"}), o: Options{Files: []string{"sub/F"}}, want: "F"},
		"file and -": {in: []byte("FROM x"), o: Options{Files: []string{"-"}}, err: "both want standard input"},
		"too large":  {in: archive(t, [2]string{"Dockerfile", strings.Repeat("D", 100_000)}), o: Options{MaxBytes: 1000}, err: "build context from stdin: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := c.o
			o.Location, o.Stdin = "-", bytes.NewReader(c.in)
			got, err := open(t, o)
			content, _ := os.ReadFile(canary + "/canary")
			if string(content) != "TOKEN" {
				t.Fatalf("the canary holds %q", content)
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v; want %s", err, c.err)
				}
				return
			}
			if err != nil {
				// Refusing a hostile member by name is as good.
				if name == "escape" || name == "through" {
					return
				}
				t.Fatal(err)
			}
			if string(got.Containerfile) != c.want {
				t.Errorf("%q", got.Containerfile)
			}
		})
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
			t.Errorf("a foreign host got %v", r.Header)
		}
		_, _ = io.WriteString(w, "FROM redirected")
	}))
	t.Cleanup(other.Close)
	tries := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/x.tar.gz":
			_, _ = w.Write(gz(archive(t, [2]string{"Dockerfile", "D"})))
		case "/file":
			_, _ = io.WriteString(w, "FROM file")
		case "/auth":
			if u, p, _ := r.BasicAuth(); u != "user" || p != "secret" {
				w.WriteHeader(http.StatusUnauthorized)
			}
			_, _ = io.WriteString(w, "FROM auth")
		case "/redirect":
			http.Redirect(w, r, other.URL+"/y", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/busy":
			if tries++; tries < 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			_, _ = io.WriteString(w, "FROM busy")
		case "/large":
			_, _ = w.Write(make([]byte, 10_000))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	base := strings.Replace(server.URL, "http://", "http://user:secret@", 1)
	for path, want := range map[string]string{
		"/x.tar.gz": "D", "/file": "FROM file", "/auth": "FROM auth", "/redirect": "FROM redirected", "/busy": "FROM busy",
	} {
		c, err := open(t, Options{Location: base + path})
		if err != nil || string(c.Containerfile) != want {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if strings.Contains(c.Name, "secret") || c.Name != server.URL+path {
			t.Errorf("name %s", c.Name)
		}
	}
	for path, want := range map[string]string{
		"/nope?token=secret": server.URL + "/nope?...: the server answered 404 Not Found: not found",
		"/loop":              server.URL + "/loop: more than 10 redirects",
		"/large":             "reading the build context from " + server.URL + "/large: larger than the limit of 5000 bytes: invalid input",
	} {
		_, err := open(t, Options{Location: base + path, MaxDownload: 5000})
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v; want %s", path, err, want)
		}
	}
	if _, err := open(t, Options{Location: "http://127.0.0.1:1/x"}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("refused: %v", err)
	}
}

func TestDownload(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
		w.Header().Set("Content-Disposition", `attachment; filename="../../evil"`)
		if strings.HasPrefix(r.URL.Path, "/short") {
			w.Header().Set("Content-Length", "100")
		}
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(server.Close)
	temp := t.TempDir()
	ctx := context.Background()
	for path, name := range map[string]string{"/a/file.txt?q=1": "file.txt", "/": "", "": "", "/a/": "", "/a/..": "", "/a%2Fb": "b"} {
		d, err := Download(ctx, server.URL+path, DownloadOptions{TempDir: temp, MaxBytes: 100})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		content, _ := io.ReadAll(d)
		if d.Name != name || d.Size != 5 || d.ModTime != "2015-10-21T07:28:00Z" || string(content) != "hello" ||
			d.Digest != "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" {
			t.Errorf("%s: %+v %q", path, d, content)
		}
		if left, _ := os.ReadDir(temp); len(left) != 0 {
			t.Errorf("named while open: %v", left)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := Download(ctx, server.URL+"/x", DownloadOptions{TempDir: temp, MaxBytes: 4}); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("too large: %v", err)
	}
	if _, err := Download(ctx, server.URL+"/short", DownloadOptions{TempDir: temp}); err == nil {
		t.Error("a short body is accepted")
	}
	if _, err := Download(ctx, "ftp://host/x", DownloadOptions{TempDir: temp}); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("ftp: %v", err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Download(canceled, server.URL+"/x", DownloadOptions{TempDir: temp}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}
