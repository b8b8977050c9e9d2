package testenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// tryRuntime runs "busybox true" in a container.
func tryRuntime(name string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("needs busybox (package busybox-static) to try %s", name)
	}
	dir, err := os.MkdirTemp("", "testenv-"+name+"-")
	if err != nil {
		return err
	}
	defer RemoveStore(dir)
	if err := makeBundle(name, dir, busybox); err != nil {
		return err
	}
	id := "testenv-" + strconv.Itoa(os.Getpid())
	out, err := exec.Command(name, "--root", filepath.Join(dir, "state"), "run", "--bundle", dir, id).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s runs no container here: %w: %s", name, err, firstLine(out))
	}
	return nil
}

// makeBundle takes the runtime's own template and makes it small enough for
// any host: no terminal, no limits, one command.
func makeBundle(name, dir, busybox string) error {
	bin := filepath.Join(dir, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), program, 0o755); err != nil {
		return err
	}
	args := []string{"spec"}
	if os.Geteuid() != 0 {
		args = append(args, "--rootless")
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s spec: %w: %s", name, err, firstLine(out))
	}
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(b, &spec); err != nil {
		return err
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		return errors.New(name + " spec: a template without a process")
	}
	process["terminal"] = false
	process["args"] = []string{"/bin/busybox", "true"}
	delete(process, "rlimits")
	if b, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
