package tests

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stratabuild/strata/docs"
)

// TestDocs fails when the generated documentation differs from the commands.
func TestDocs(t *testing.T) {
	files, err := docs.Generate()
	if err != nil {
		t.Fatal(err)
	}
	const remedy = "run: make docs"
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("../docs", name))
		if err != nil {
			t.Errorf("%v; %s", err, remedy)
		} else if !bytes.Equal(got, want) {
			t.Errorf("docs/%s differs from the command tree; %s", name, remedy)
		}
	}
	for _, dir := range docs.Directories {
		entries, err := os.ReadDir(filepath.Join("../docs", dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if name := filepath.Join(dir, e.Name()); files[name] == nil {
				t.Errorf("docs/%s belongs to no command; %s", name, remedy)
			}
		}
	}
}
