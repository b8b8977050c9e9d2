package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stratabuild/strata/tests/baseimage"
	"github.com/stratabuild/strata/tests/ociread"
	"github.com/stratabuild/strata/tests/testenv"
)

// corpusCase is one folder of corpus/: see corpus/README.md.
type corpusCase struct {
	name, dir string
	rows      []string
	args      []string
	tree      []string // paths whose content is compared
	config    []string // keys that are compared
	peer      string   // why buildah differs, "" when it should not
	buildkit  string   // why BuildKit does
	archive   *txtar.Archive
}

func readCase(dir string) (*corpusCase, error) {
	archive, err := txtar.ParseFile(filepath.Join(dir, "case"))
	if err != nil {
		return nil, err
	}
	c := &corpusCase{name: filepath.Base(dir), dir: dir, archive: archive}
	for _, line := range strings.Split(string(archive.Comment), "\n") {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "":
		case "row":
			c.rows = append(c.rows, value)
		case "args":
			c.args = append(c.args, strings.Fields(value)...)
		case "tree":
			c.tree = strings.Fields(value)
		case "config":
			c.config = strings.Fields(value)
		case "peer":
			c.peer = value
		case "buildkit":
			c.buildkit = value
		default:
			return nil, fmt.Errorf("%s: unknown key %q", c.name, key)
		}
	}
	if len(c.rows) == 0 {
		return nil, fmt.Errorf("%s: names no row", c.name)
	}
	return c, nil
}

func (c *corpusCase) section(name string) (string, bool) {
	for _, f := range c.archive.Files {
		if f.Name == name {
			return string(f.Data), true
		}
	}
	return "", false
}

func (c *corpusCase) set(name, text string) {
	c.archive.Files = slices.DeleteFunc(c.archive.Files, func(f txtar.File) bool { return f.Name == name })
	c.archive.Files = append(c.archive.Files, txtar.File{Name: name, Data: []byte(text)})
}

func corpusCases(t *testing.T) []*corpusCase {
	t.Helper()
	files, err := filepath.Glob("corpus/*/case")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	var cases []*corpusCase
	for _, f := range files {
		c, err := readCase(filepath.Dir(f))
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	return cases
}

// corpusTool runs builds: strata, or a peer.
type corpusTool struct {
	words []string // program and global options
	flags []string // of build
	env   []string
}

func (tool corpusTool) run(args ...string) (stderr string, err error) {
	words := append(slices.Clone(tool.words), args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), tool.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return errs.String(), err
}

// build builds a case and reads what came of it.
func (tool corpusTool) build(c *corpusCase, context, work string) (img *ociread.Image, stderr string, err error) {
	tag := "localhost/corpus/" + c.name
	args := append([]string{"build"}, tool.flags...)
	args = append(append(args, "-t", tag), c.args...)
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "$CASE", context)
	}
	if stderr, err = tool.run(append(args, filepath.Join(context, "ctx"))...); err != nil {
		return nil, stderr, err
	}
	layout := filepath.Join(work, c.name+".oci")
	if more, err := tool.run("push", "-q", tag, "oci:"+layout); err != nil {
		return nil, stderr + more, err
	}
	img, err = ociread.Read(layout)
	return img, stderr, errors.Join(err, os.RemoveAll(layout))
}

// TestCorpus builds every case. UPDATE_CORPUS=1 writes trees, configs and
// errors anew.
func TestCorpus(t *testing.T) {
	tool := strataTool(t)
	work := t.TempDir()
	for _, c := range corpusCases(t) {
		t.Run(c.name, func(t *testing.T) {
			img, stderr, err := tool.build(c, corpusContext(t, c), work)
			if os.Getenv("UPDATE_CORPUS") != "" {
				updateCase(t, c, img, stderr, err)
				return
			}
			for _, d := range c.differences(img, stderr, err, true) {
				t.Error(d)
			}
			if t.Failed() {
				t.Logf("standard error:\n%s", stderr)
			}
		})
	}
}

func strataTool(t *testing.T) corpusTool {
	t.Helper()
	store := testenv.NewStore(t)
	binary := testenv.Strata(t)
	tool := corpusTool{words: append([]string{binary}, store.Args()...), env: []string{"STRATA_BUILD_PROGRESS=plain"}}
	tool.prepare(t, "busybox")
	return tool
}

func (tool corpusTool) prepare(t *testing.T, name string) {
	t.Helper()
	// buildah's names of layouts have no capitals, as t.TempDir's have.
	base, err := os.MkdirTemp("", "strata-corpus-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	busybox, err := baseimage.Busybox(t.Context(), base)
	if err != nil {
		t.Skip(err)
	}
	layout := filepath.Join(base, "layout")
	if _, err := baseimage.Write(layout, baseimage.Ref, busybox); err != nil {
		t.Fatal(err)
	}
	source := "oci:" + layout + ":" + baseimage.Ref
	if stderr, err := tool.run("pull", "-q", source); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	words := append(slices.Clone(tool.words), "images", "-q", "--no-trunc")
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), tool.env...)
	id, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if stderr, err := tool.run("tag", strings.TrimSpace(string(id)), "localhost/"+name+":latest"); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
}

// corpusTime is the time of all files of a context.
var corpusTime = time.Unix(1700000000, 0)

// corpusContext copies a case, so that its files have the same modes and times
// wherever they were checked out.
func corpusContext(t *testing.T, c *corpusCase) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "case")
	var made []string
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(c.dir, path)
		dest := filepath.Join(to, rel)
		made = append(made, dest)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(dest, 0o755)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dest)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		return os.WriteFile(dest, data, mode)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(to, "ctx"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(to, "Containerfile"), filepath.Join(to, "ctx/Containerfile")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, m := range slices.Backward(made) {
		if info, err := os.Lstat(m); err == nil && info.Mode()&fs.ModeSymlink == 0 {
			if err := errors.Join(os.Chmod(m, info.Mode().Perm()|0o044|info.Mode().Perm()&0o100>>3|info.Mode().Perm()&0o100>>6), os.Chtimes(m, corpusTime, corpusTime)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return to
}

// shortest is up to how many bytes of a file are shown.
const shortest = 120

// listing is the tree at and below the paths, with the content of short files.
func listing(img *ociread.Image, paths []string) string {
	var lines []string
	for p, e := range img.Tree {
		if !slices.ContainsFunc(paths, func(prefix string) bool {
			return strings.HasPrefix(p+"/", strings.TrimSuffix(prefix, "/")+"/")
		}) {
			continue
		}
		line := e.String()
		if len(e.Data) > 0 && len(e.Data) <= shortest {
			line = strings.Replace(line, fmt.Sprintf("%d bytes", len(e.Data)), fmt.Sprintf("%q", e.Data), 1)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(append(lines, ""), "\n")
}

// configSubset is the named keys of an image's config, those of its
// "config" object first.
func configSubset(img *ociread.Image, keys []string) string {
	inner, _ := img.Config["config"].(map[string]any)
	if labels, ok := inner["Labels"].(map[string]any); ok {
		delete(labels, "io.buildah.version") // a peer's mark
	}
	out := map[string]any{}
	for _, k := range keys {
		v, ok := inner[k]
		if !ok {
			v = img.Config[k]
		}
		out[k] = v
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(out) // maps of decoded JSON
	return b.String()
}

// differences compares what a build gave with what the case wants; texts says
// whether the words of errors count.
func (c *corpusCase) differences(img *ociread.Image, stderr string, err error, texts bool) (list []string) {
	if want, ok := c.section("error"); ok {
		if err == nil {
			return []string{"it was built; want an error"}
		}
		if texts {
			list = matches("error", want, stderr)
		}
		return list
	}
	if err != nil {
		return []string{fmt.Sprintf("%v: %s", err, stderr)}
	}
	if want, ok := c.section("says"); ok && texts {
		list = append(list, matches("says", want, stderr)...)
	}
	if want, ok := c.section("tree"); ok {
		if got := listing(img, c.tree); got != want {
			list = append(list, fmt.Sprintf("tree:\n%swant:\n%s", got, want))
		}
	}
	if want, ok := c.section("config"); ok {
		if got := configSubset(img, c.config); got != want {
			list = append(list, fmt.Sprintf("config:\n%swant:\n%s", got, want))
		}
	}
	return list
}

// matches reports the regular expressions, one a line, that match no line.
func matches(what, patterns, text string) (list []string) {
	for _, p := range strings.Split(strings.TrimSpace(patterns), "\n") {
		negated := strings.HasPrefix(p, "! ")
		re, err := regexp.Compile("(?m)" + strings.TrimPrefix(p, "! "))
		if err != nil {
			return []string{err.Error()}
		}
		if re.MatchString(text) == negated {
			list = append(list, fmt.Sprintf("%s: %q in %q", what, p, text))
		}
	}
	return list
}

func updateCase(t *testing.T, c *corpusCase, img *ociread.Image, stderr string, err error) {
	t.Helper()
	if _, wantError := c.section("error"); err != nil {
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		if !wantError {
			t.Errorf("%v: %s", err, stderr)
			return
		}
		c.set("error", "^"+regexp.QuoteMeta(lines[len(lines)-1])+"$\n")
	} else if wantError {
		t.Errorf("it was built; want an error")
		return
	}
	if img != nil && len(c.tree) > 0 {
		c.set("tree", listing(img, c.tree))
	}
	if img != nil && len(c.config) > 0 {
		c.set("config", configSubset(img, c.config))
	}
	if err := os.WriteFile(filepath.Join(c.dir, "case"), txtar.Format(c.archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestCorpusPeer builds the cases with buildah and reports where its trees and
// configs differ. It runs only when CORPUS_PEER names the program: a peer's
// version is nothing that a test should fail by.
func TestCorpusPeer(t *testing.T) {
	program := os.Getenv("CORPUS_PEER")
	if program == "" {
		t.Skip("CORPUS_PEER names no program; make corpus-peer does")
	}
	testenv.Require(t, testenv.Root, testenv.Tool(program), testenv.Runtime("runc"))
	store := testenv.NewStore(t)
	conf := filepath.Join(store.Dir, "containers.conf")
	text := "[containers]\ndefault_ulimits = [\"nofile=1024:20000\", \"nproc=1000:1000\"]\n[engine]\nruntime = \"runc\"\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	tool := corpusTool{words: append([]string{program}, store.Args("--storage-driver", "overlay")...),
		flags: []string{"--layers", "--runtime", "runc", "--network", "host"},
		env:   []string{"CONTAINERS_CONF=" + conf, "BUILDAH_RUNTIME=runc"}}
	tool.prepare(t, "busybox")
	comparePeer(t, program, func(c *corpusCase) string { return c.peer }, tool.build)
}
