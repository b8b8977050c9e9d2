package copier_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/stratabuild/strata/copier"
)

// COPY *.txt /docs/: select once, digest for the cache key, put on a miss.
func ExampleRoot_Select() {
	tmp, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	for _, dir := range []string{"context", "rootfs"} {
		if err := os.Mkdir(filepath.Join(tmp, dir), 0o755); err != nil {
			log.Fatal(err)
		}
	}
	for _, name := range []string{"a.txt", "b.txt", "c.md"} {
		if err := os.WriteFile(filepath.Join(tmp, "context", name), []byte(name), 0o644); err != nil {
			log.Fatal(err)
		}
	}
	source, err := copier.OpenRoot(filepath.Join(tmp, "context"))
	if err != nil {
		log.Fatal(err)
	}
	defer source.Close()
	root, err := copier.OpenRoot(filepath.Join(tmp, "rootfs"))
	if err != nil {
		log.Fatal(err)
	}
	defer root.Close()

	ctx := context.Background()
	selection, err := source.Select(ctx, copier.Select{Patterns: []string{"*.txt"}})
	if err != nil {
		log.Fatal(err)
	}
	files, err := selection.Digests(ctx, copier.DigestOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range files.List() {
		fmt.Println(f.Path, f.Digest.Algorithm())
	}
	owner := copier.Owner{UID: os.Getuid(), GID: os.Getgid()}
	if err := selection.Put(ctx, root, copier.Put{Dest: "/docs/", Owner: &owner}); err != nil {
		log.Fatal(err)
	}
	b, err := root.ReadFile("/docs/b.txt", 100)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(b))
	// Output:
	// a.txt sha256
	// b.txt sha256
	// b.txt
}

// A link that leads out of the root leads to the same name inside it.
func ExampleRoot_Open() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Symlink("/etc", filepath.Join(dir, "conf")); err != nil {
		log.Fatal(err)
	}
	root, err := copier.OpenRoot(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer root.Close()
	_, err = root.ReadFile("conf/passwd", 1<<20)
	fmt.Println(strings.Contains(err.Error(), "no such file"))
	// Output: true
}
