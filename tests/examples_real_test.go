//go:build real

package tests

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/testenv"
)

func init() { moreExamples = realExamples }

// realExamples are the scripts that get packages from the network.
func realExamples(t *testing.T, scripts string) []example {
	mirror, err := testenv.DebianMirror()
	if err != nil {
		t.Fatal(err)
	}
	service, err := filepath.Abs("real/go")
	if err != nil {
		t.Fatal(err)
	}
	debian := []testenv.Condition{testenv.Tool("mmdebstrap")}
	if testenv.Root() != nil {
		debian = append(debian, testenv.Newuidmap) // packages have files of many owners
	}
	// Both runs of mmdebstrap give the same files with the same times.
	const epoch = "SOURCE_DATE_EPOCH=1700000000"
	return []example{
		{name: "debian", script: filepath.Join(scripts, "debian.sh"), needs: debian, env: []string{epoch},
			after: []string{testenv.DebianSuite(), mirror},
			run:   []string{"sh", "-c", "dpkg --audit && . /etc/os-release && echo $ID"}, want: "debian"},
		{name: "go-service", script: filepath.Join(scripts, "go-service.sh"), needs: []testenv.Condition{installed("go")}, env: goEnv(),
			before: []string{service}, run: []string{"/service"}, want: "aad03681-8b63-5304-89e0-8ca8f49461b5"},
	}
}

// goEnv has scripts, whose HOME is another, use this user's Go caches.
func goEnv() []string {
	env := []string{"GOFLAGS=-buildvcs=false"}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB"} {
		if out, err := exec.Command("go", "env", name).Output(); err == nil {
			env = append(env, name+"="+strings.TrimSpace(string(out)))
		}
	}
	return env
}
