package tests

import (
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
)

// reserved are the names that a module's archive may not hold in any case and
// with any ending: "go install" of the module would fail
// (golang.org/ref/mod#zip-path-size-constraints).
var reserved = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?$`)

func TestModuleCanBeInstalled(t *testing.T) {
	out, err := exec.Command("git", "ls-files", "-z", "..").Output()
	if err != nil {
		t.Skip("not a git checkout")
	}
	for _, file := range strings.Split(string(out), "\x00") {
		for _, element := range strings.Split(path.Clean(file), "/") {
			if reserved.MatchString(element) || strings.ContainsAny(element, "\"'*<>?`|\\:") {
				t.Errorf("%s: no module archive can hold this name", file)
			}
		}
	}
}
