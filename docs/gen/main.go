// Command gen writes the generated files below docs/, where go generate runs
// it, and removes those that no command stands for any more.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/stratabuild/strata/docs"
)

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	files, err := docs.Generate()
	if err != nil {
		return err
	}
	for _, d := range docs.Directories {
		if err := os.RemoveAll(filepath.Join(dir, d)); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
