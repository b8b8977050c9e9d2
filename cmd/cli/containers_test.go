package cli

import (
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/cmd/internal/imagestore"
	"golang.org/x/sys/unix"
)

func TestContainerUsage(t *testing.T) {
	for line, want := range map[string]string{
		"from":                                    "needs one image",
		"from --name a/b x":                       "want letters",
		"from --format zip x":                     "oci or docker",
		"from --pull=sometimes x":                 "--pull",
		"from --isolation chrot x":                "did you mean chroot?",
		"from --suffix a/b x":                     "--suffix",
		"from --decryption-key nosuchkey x":       "no such file",
		"run":                                     "needs a container and a command",
		"run c --":                                "needs a container and a command",
		"run --env =x c true":                     "want name=value",
		"run --valid-exit-codes x c true":         "valid-exit-codes",
		"run --cached -t c true":                  "leave one out",
		"run --explain c true":                    "with --cached only",
		"run --volume x c true":                   "source:/target",
		"containers --filter x=y":                 "want one of id, name, ancestor",
		"containers --quiet --format json":        "want one of them",
		"containers --format {{.No}}":             "No",
		"containers x":                            "takes no arguments",
		"rename a":                                "needs a container and its new name",
		"rename a b/c":                            "want letters",
		"rm":                                      "containers or --all",
		"rm --all x":                              "one of them",
		"umount":                                  "containers or --all",
		"umount -a x":                             "one of them",
		"unshare --mount =c true":                 "[VARIABLE=]container",
		"inspect --format {{ x":                   "--format",
		"inspect --type nonsense x":               "want container or image",
		"from --name x --cidfile /nosuch/dir/f x": "--cidfile",
	} {
		t.Run(line, func(t *testing.T) {
			status, stdout, stderr := execute(t, nil, strings.Fields(line)...)
			if status != exitError || stdout != "" || !strings.Contains(stderr, want) {
				t.Errorf("status %d, stdout %q, stderr %q, want %q in it", status, stdout, stderr, want)
			}
		})
	}
}

func TestOverrideRun(t *testing.T) {
	defaults := builder.Confinement{
		CapAdd: []string{"NET_ADMIN", "CHOWN"}, CapDrop: []string{"CAP_KILL", "MKNOD"}, AddHosts: []string{"a:1.1.1.1"},
		ShmSize: 1, Network: isolation.NetworkNone, HTTPProxy: true, Hostname: "box",
	}
	given := builder.Confinement{CapAdd: []string{"kill"}, CapDrop: []string{"CAP_NET_ADMIN"}, AddHosts: []string{"b:1.1.1.2"}, ShmSize: 2}
	got := overrideRun(defaults, given, func(flag string) bool { return flag == "shm-size" || flag == "http-proxy" })
	want := builder.Confinement{
		CapAdd: []string{"CHOWN", "kill"}, CapDrop: []string{"MKNOD", "CAP_NET_ADMIN"}, AddHosts: []string{"a:1.1.1.1", "b:1.1.1.2"},
		ShmSize: 2, Network: isolation.NetworkNone, HTTPProxy: false, Hostname: "box",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if len(defaults.CapAdd) != 2 || defaults.CapAdd[0] != "NET_ADMIN" {
		t.Errorf("the defaults were changed: %v", defaults.CapAdd)
	}
}

// The flags that overrideRun asks for are those of run, and all of them.
func TestOverrideRunKnowsFlags(t *testing.T) {
	asked := map[string]bool{"isolation": true, "runtime": true, "runtime-flag": true} // not of Confinement
	for _, list := range []string{"cap-add", "cap-drop", "ulimit", "add-host", "volume", "device", "group-add"} {
		asked[list] = true
	}
	overrideRun(builder.Confinement{}, builder.Confinement{}, func(flag string) bool { asked[flag] = true; return false })
	cmd := &cobra.Command{Use: "x"}
	var flags runFlags
	flags.add(cmd)
	flags.addHostFiles(cmd)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !asked[f.Name] {
			t.Errorf("--%s of run is ignored", f.Name)
		}
		delete(asked, f.Name)
	})
	delete(asked, "hostname") // run's own
	for name := range asked {
		t.Errorf("there is no flag --%s", name)
	}
}

func TestMatchesContainer(t *testing.T) {
	c := builder.ContainerInfo{ID: "abcdef", Names: []string{"alpine-working-container", "second"}}
	for _, test := range []struct {
		filters imagestore.Filters
		want    bool
	}{
		{nil, true},
		{imagestore.Filters{"id": {"abc"}}, true},
		{imagestore.Filters{"id": {"bcd"}}, false},
		{imagestore.Filters{"id": {"x", "ab"}}, true},
		{imagestore.Filters{"name": {"working"}}, true},
		{imagestore.Filters{"name": {"second"}}, true},
		{imagestore.Filters{"name": {"third"}}, false},
		{imagestore.Filters{"name": {"second"}, "id": {"x"}}, false},
	} {
		if got := matchesContainer(c, test.filters); got != test.want {
			t.Errorf("%v: %t", test.filters, got)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range [][3]string{{"short", "", "short"}, {"0123456789ab", "", "0123456789"}, {"0123456789ab", "...", "0123456..."}, {"ääääääääääää", "...", "äääääää..."}} {
		if got := cut(c[0], 10, c[1]); got != c[2] {
			t.Errorf("%q: %q, want %q", c[0], got, c[2])
		}
	}
}

func TestParseNamedMounts(t *testing.T) {
	got, err := parseNamedMounts([]string{"app", "root=other"})
	if err != nil || !reflect.DeepEqual(got, []namedMount{{"app", "app"}, {"root", "other"}}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "=app", "root="} {
		if _, err := parseNamedMounts([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// A terminal that is left raw is set right again.
func TestKeepTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminals: ", err)
	}
	defer master.Close()
	fd := int(master.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	restore := keepTerminal(master)
	raw := *before
	raw.Lflag &^= unix.ECHO | unix.ICANON
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		t.Fatal(err)
	}
	restore()
	if now, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil || *now != *before {
		t.Errorf("it is left as %+v, %v", now, err)
	}
	keepTerminal(nil)()
}

// Only the first process of a pid namespace is deaf to signals.
func TestDeafInit(t *testing.T) {
	if deafInit(os.Getpid(), syscall.SIGINT) {
		t.Error("this process is")
	}
	if deafInit(1<<22+1, syscall.SIGINT) {
		t.Error("one that does not exist is")
	}
	start := func(script string) int {
		c := exec.Command("/bin/sh", "-c", script)
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
		if os.Geteuid() != 0 {
			c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		}
		if err := c.Start(); err != nil {
			t.Skip("no pid namespaces here: ", err)
		}
		t.Cleanup(func() {
			_ = c.Process.Kill()
			_ = c.Wait()
		})
		return c.Process.Pid
	}
	deaf, hears := start("exec sleep 60"), start("trap : INT; sleep 60 & wait")
	for range 100 {
		if deafInit(deaf, syscall.SIGINT) && !deafInit(hears, syscall.SIGINT) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("without a handler: %t, with one: %t", deafInit(deaf, syscall.SIGINT), deafInit(hears, syscall.SIGINT))
}
