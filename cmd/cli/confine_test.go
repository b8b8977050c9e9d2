package cli

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/imagebuildah"
)

// confinement reads flags as build does.
func confinement(t *testing.T, args ...string) (imagebuildah.RunOptions, error) {
	t.Helper()
	var r runFlags
	cmd := &cobra.Command{Use: "x"}
	r.add(cmd)
	r.addHostFiles(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		return imagebuildah.RunOptions{}, err
	}
	return r.options()
}

func TestConfinementFlags(t *testing.T) {
	t.Parallel()
	profile := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := confinement(t, "-m", "64m", "--memory-swap=-1", "-c", "512", "--cpu-quota", "50000", "--cpu-period", "100000", "--cpuset-cpus", "0",
		"--cpuset-mems", "0", "--pids-limit", "9", "--cgroup-parent", "/a", "--device", "/dev/null:/dev/n:rw", "--group-add", "a,7",
		"--security-opt", "seccomp="+profile, "--security-opt", "no-new-privileges", "--security-opt", "mask=/a:/b",
		"--security-opt", "unmask=all", "--security-opt", "label=disable", "--security-opt", "apparmor=unconfined",
		"--pid", "host", "--ipc", "private", "--uts", "host", "--cgroupns", "container", "--userns", "host", "--no-hosts", "--no-hostname")
	if err != nil {
		t.Fatal(err)
	}
	want := isolation.Limits{Memory: 64 << 20, MemorySwap: -1, CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, CPUSetCPUs: "0",
		CPUSetMems: "0", PIDs: 9, Parent: "/a"}
	if o.Limits != want {
		t.Errorf("limits %+v\nwant   %+v", o.Limits, want)
	}
	if d := []isolation.Device{{Source: "/dev/null", Target: "/dev/n", Permissions: "rw"}}; !reflect.DeepEqual(o.Devices, d) {
		t.Errorf("devices %+v", o.Devices)
	}
	s := isolation.Security{SeccompProfile: []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`), NoNewPrivileges: true,
		AppArmor: "unconfined", Mask: []string{"/a", "/b"}, Unmask: []string{"ALL"}}
	if !reflect.DeepEqual(o.Security, s) {
		t.Errorf("security %+v", o.Security)
	}
	if n := (isolation.Namespaces{PID: "host", IPC: "private", UTS: "host", Cgroup: "container", User: "host"}); o.Namespaces != n {
		t.Errorf("namespaces %+v", o.Namespaces)
	}
	if !o.NoHosts || !o.NoHostname || !reflect.DeepEqual(o.GroupAdd, []string{"a", "7"}) {
		t.Errorf("%+v", o)
	}
}

func TestConfinementFlagsBad(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"-m 0":                               "--memory",
		"-m -1":                              "--memory",
		"-m big":                             "want bytes",
		"--memory-swap 1m":                   "needs a memory limit",
		"-m 2m --memory-swap 1m":             "less than the memory limit",
		"-c 1":                               "2 to 262144",
		"--cpu-quota 5":                      "1000 microseconds",
		"--cpuset-cpus x":                    "0-2,4",
		"--pids-limit -2":                    "limit of processes",
		"--cgroup-parent ../x":               "..",
		"--device relative":                  "absolute",
		"--device /dev/null:/a:/b":           "source[:target",
		"--device /dev/null:r":               "only rw and rwm",
		"--device vendor.com/gpu=all":        "CDI",
		"--device /etc":                      "",
		"--device /etc/passwd":               "neither a device nor a directory",
		"--security-opt x":                   "one of seccomp=",
		"--security-opt seccomp=":            "seccomp=unconfined",
		"--security-opt seccomp=/no/such":    "no such file",
		"--security-opt seccomp=/etc/passwd": "--security-opt seccomp=/etc/passwd: is no JSON, as a seccomp profile is",
		"--security-opt mask=a":              "mask=/PATH",
		"--security-opt mask=/":              "cannot be hidden",
		"--security-opt unmask=a":            "unmask=ALL",
		"--security-opt apparmor=":           "apparmor=PROFILE",
		"--security-opt label=x":             "label=disable",
		"--security-opt systempaths=x":       "systempaths=unconfined",
		"--security-opt no-new-privileges=x": "no-new-privileges",
		"--pid ns":                           "private, host, or the path",
		"--ipc /no/such":                     "no such file",
		"--userns nonsense":                  "want host",
		"--group-add ,":                      "--group-add",
		"--no-hosts --add-host a:1.2.3.4":    "keep the image's /etc/hosts",
		"--volume /a:/b:O,x":                 "option",
	} {
		_, err := confinement(t, strings.Fields(line)...)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}
