package overlay

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// shifted is a map of 0 to 65535 to the ids from 200000 on.
func shifted(t *testing.T) *IDMap {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mapping the owners of a mount needs root")
	}
	const base, size = 200000, 65536
	cmd := exec.Command("sleep", "1000")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: size}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	if err := cmd.Start(); err != nil {
		t.Skipf("user namespaces: %v", err)
	}
	ns, err := os.Open("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/user")
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return &IDMap{Namespace: ns, UID: base, GID: base}
}

// TestMapped: through the mount an owner c is 200000+c, on disk it stays c, and
// what is made, copied up, given away or deleted by the mapped root is stored
// as root's would be.
func TestMapped(t *testing.T) {
	m := shifted(t)
	for way, name := range []string{"detached", "attached", "legacy"} {
		t.Run(name, func(t *testing.T) {
			firstMapWay = way
			defer func() { firstMapWay = mapDetached }()
			low := lowers(t, 2)
			old := in(low[0], "file0")
			if err := os.Chown(old, 7, 8); err != nil {
				t.Fatal(err)
			}
			s := scratch(t)
			root, err := Mount(Options{Lowers: low, Upper: s.Upper, Work: s.Work, Map: m})
			if err != nil {
				t.Fatal(err)
			}
			check := func(path string, uid, gid uint32) {
				t.Helper()
				var st unix.Stat_t
				if err := unix.Lstat(path, &st); err != nil || st.Uid != uid || st.Gid != gid {
					t.Errorf("%s: owner %d:%d, %v; want %d:%d", filepath.Base(path), st.Uid, st.Gid, err, uid, gid)
				}
			}
			check(in(root, "file0"), 200007, 200008)
			sh := exec.Command("/bin/sh", "-c", "exec 2>&1; cd /proc/self/fd/3; set -e; echo x > new; mkdir d; echo y >> file0; rm file1; chown 200033:200034 new; ln -s new link; mv d e")
			sh.ExtraFiles = []*os.File{root}
			sh.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: m.uid(), Gid: m.gid()}, AmbientCaps: []uintptr{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE}}
			if out, err := sh.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			root.Close()
			check(in(s.Upper, "new"), 33, 34)
			check(in(s.Upper, "e"), 0, 0)
			check(in(s.Upper, "link"), 0, 0)
			check(in(s.Upper, "file0"), 7, 8)
			var st unix.Stat_t
			if err := unix.Lstat(in(s.Upper, "file1"), &st); err != nil || st.Mode != unix.S_IFCHR|0 || st.Uid != 0 {
				t.Errorf("whiteout: %+v, %v", st, err)
			}
			check(old, 7, 8)
		})
	}
}

func (m *IDMap) uid() uint32 { return uint32(m.UID) }
func (m *IDMap) gid() uint32 { return uint32(m.GID) }
