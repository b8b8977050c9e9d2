package baseimage

import (
	"archive/tar"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"
)

// Epoch is the time of everything in the image.
var Epoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// Files besides busybox and its links. Users and groups are Debian's numbers.
var (
	directories = []struct {
		name string
		mode int64
		uid  int
	}{
		{"bin", 0o755, 0}, {"dev", 0o755, 0}, {"etc", 0o755, 0}, {"home", 0o755, 0}, {"home/user", 0o755, 1000},
		{"lib", 0o755, 0}, {"proc", 0o755, 0}, {"root", 0o700, 0}, {"run", 0o755, 0}, {"sbin", 0o755, 0}, {"sys", 0o755, 0},
		{"tmp", 0o1777, 0}, {"usr", 0o755, 0}, {"usr/bin", 0o755, 0}, {"usr/sbin", 0o755, 0}, {"usr/local", 0o755, 0},
		{"usr/local/bin", 0o755, 0}, {"usr/share", 0o755, 0}, {"var", 0o755, 0}, {"var/lib", 0o755, 0}, {"var/log", 0o755, 0}, {"var/tmp", 0o1777, 0},
	}
	files = []struct{ name, content string }{
		{"etc/passwd", "root:x:0:0:root:/root:/bin/sh\n" +
			"daemon:x:1:1:daemon:/usr/sbin:/bin/false\n" +
			"bin:x:2:2:bin:/bin:/bin/false\n" +
			"www-data:x:33:33:www-data:/var/www:/bin/false\n" +
			"user:x:1000:1000:user:/home/user:/bin/sh\n" +
			"nobody:x:65534:65534:nobody:/home:/bin/false\n"},
		{"etc/group", "root:x:0:\n" +
			"daemon:x:1:\n" +
			"bin:x:2:\n" +
			"staff:x:50:user\n" +
			"www-data:x:33:\n" +
			"users:x:100:\n" +
			"user:x:1000:\n" +
			"nogroup:x:65534:\n"},
		{"etc/shells", "/bin/sh\n"},
		{"etc/os-release", "ID=busybox\nNAME=\"busybox test image\"\n"},
		{"etc/profile", "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"},
	}
)

// applets asks busybox where its links belong, as "bin/ls".
func applets(busybox string) ([]string, error) {
	out, err := exec.Command(busybox, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list-full: %w", busybox, err)
	}
	var names []string
	for _, line := range strings.Fields(string(out)) {
		name := strings.TrimPrefix(path.Clean("/"+line), "/")
		switch path.Dir(name) {
		case "bin", "sbin", "usr/bin", "usr/sbin":
			names = append(names, name)
		}
	}
	if !slices.Contains(names, "bin/sh") {
		return nil, fmt.Errorf("%s has no shell among its %d applets", busybox, len(names))
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// writeRootfs writes the layer's tar stream.
func writeRootfs(w io.Writer, busybox []byte, applets []string) error {
	t := tar.NewWriter(w)
	add := func(h tar.Header, content []byte) error {
		h.ModTime, h.Size, h.Format = Epoch, int64(len(content)), tar.FormatPAX
		if err := t.WriteHeader(&h); err != nil {
			return err
		}
		_, err := t.Write(content)
		return err
	}
	for _, d := range directories {
		if err := add(tar.Header{Typeflag: tar.TypeDir, Name: d.name + "/", Mode: d.mode, Uid: d.uid, Gid: d.uid}, nil); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := add(tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644}, []byte(f.content)); err != nil {
			return err
		}
	}
	// The password file that nobody but root may read.
	if err := add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/shadow", Mode: 0o640, Gid: 42}, []byte("root:*:19723::::::\n")); err != nil {
		return err
	}
	if err := add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, busybox); err != nil {
		return err
	}
	for _, name := range applets {
		if name == "bin/busybox" {
			continue
		}
		if err := add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "/bin/busybox", Mode: 0o777}, nil); err != nil {
			return err
		}
	}
	return t.Close()
}
