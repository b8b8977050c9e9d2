package imagebuildah_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/imagebuildah"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
)

// A build from a folder.
func ExampleBuild() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	text := "FROM scratch\nCOPY Containerfile /\nLABEL greeting=hello\n"
	if err := os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(text), 0o644); err != nil {
		log.Fatal(err)
	}
	e, err := builder.Open(ctx, exampleOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	r, err := imagebuildah.Build(ctx, e, imagebuildah.Options{
		Context: buildcontext.Options{Location: dir},
		Tags:    []string{"hello"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Names, len(r.ImageID), r.Executed)
	// Output:
	// [localhost/hello:latest] 64 1
}
