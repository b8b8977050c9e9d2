package store

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPriorDriver(t *testing.T) {
	t.Parallel()
	const image = `[{"id":"a"}]`
	for name, c := range map[string]struct {
		files map[string]string // "" is a directory
		want  string
	}{
		"new":                    {nil, ""},
		"overlay":                {map[string]string{"overlay": ""}, ""},
		"vfs":                    {map[string]string{"vfs": ""}, "vfs"},
		"both, without images":   {map[string]string{"overlay": "", "vfs": ""}, "overlay"},
		"both, images in vfs":    {map[string]string{"overlay": "", "vfs": "", "overlay-images/images.json": "[]", "vfs-images/images.json": image}, "vfs"},
		"both, images in both":   {map[string]string{"overlay": "", "vfs": "", "overlay-images/images.json": image, "vfs-images/images.json": image}, "overlay"},
		"both, damaged lists":    {map[string]string{"overlay": "", "vfs": "", "vfs-images/images.json": `[{"id`}, "overlay"},
		"images, but no overlay": {map[string]string{"vfs": "", "overlay-images/images.json": image}, "vfs"},
	} {
		root := t.TempDir()
		for f, content := range c.files {
			path := filepath.Join(root, f)
			if content == "" {
				if err := os.Mkdir(path, 0o700); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := priorDriver(root); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
