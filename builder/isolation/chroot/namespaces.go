package chroot

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
)

// joinable are the namespaces that a step can be put into; of the others, or
// of its own, it has none here (doc.go).
var joinable = [...]struct {
	kind specs.LinuxNamespaceType
	flag int
}{{specs.NetworkNamespace, unix.CLONE_NEWNET}, {specs.IPCNamespace, unix.CLONE_NEWIPC}, {specs.UTSNamespace, unix.CLONE_NEWUTS}}

// join adds the namespaces that the step joins to the descriptors.
func (j *job) join(s *isolation.Spec, files []*os.File) ([]*os.File, error) {
	j.Joined = map[specs.LinuxNamespaceType]int{}
	for _, n := range s.Linux.Namespaces {
		given := s.Joined[n.Type]
		if given == nil && n.Path == "" {
			continue
		}
		var f *os.File
		var err error
		if given != nil {
			f, err = duplicate(given)
		} else {
			f, err = os.Open(n.Path)
		}
		if err != nil {
			return files, fmt.Errorf("%s namespace: %w", n.Type, err)
		}
		known := false
		for _, k := range joinable {
			known = known || k.kind == n.Type
		}
		if !known {
			f.Close()
			return files, fmt.Errorf("%s namespace %s: cannot be joined in this kind of isolation: %w", n.Type, n.Path, define.ErrUnsupported)
		}
		j.Joined[n.Type] = rootFd + len(files)
		files = append(files, f)
	}
	return files, nil
}

// joinAll puts this thread into the namespaces.
func joinAll(j *job) error {
	for _, k := range joinable {
		fd, ok := j.Joined[k.kind]
		if !ok {
			continue
		}
		if err := unix.Setns(fd, k.flag); err != nil {
			return fmt.Errorf("%s namespace: cannot be joined: %w", k.kind, err)
		}
	}
	return nil
}

// changeProfile has the AppArmor profile changed by execve.
func changeProfile(name string) error {
	if name == "" {
		return nil
	}
	f, err := os.OpenFile("/proc/thread-self/attr/apparmor/exec", os.O_WRONLY, 0)
	if err != nil { // before Linux 5.8
		f, err = os.OpenFile("/proc/thread-self/attr/exec", os.O_WRONLY, 0)
	}
	if err == nil {
		_, err = f.WriteString("exec " + name)
		f.Close()
	}
	if err != nil {
		return fmt.Errorf("AppArmor profile %s (apparmor_parser -r FILE loads one, as root): %w", name, err)
	}
	return nil
}
