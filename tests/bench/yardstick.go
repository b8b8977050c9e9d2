package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// yardstick is a script for each row.
type yardstick struct {
	alone
	files string // the base image's files
}

func newYardstick(ctx context.Context, s *session) (yardstick, error) {
	files, err := s.baseFiles(ctx)
	return yardstick{files: files}, err
}

// baseFiles unpacks the base image by making it again as files.
func (s *session) baseFiles(ctx context.Context) (string, error) {
	files := filepath.Join(s.top, "base-files")
	if _, err := os.Stat(files); err == nil {
		return files, nil
	}
	for _, d := range []string{"bin", "proc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(files, d), 0o755); err != nil {
			return "", err
		}
	}
	_, err := output(ctx, exec.Command("cp", s.busybox, filepath.Join(files, "bin", "busybox")))
	// The links need not be complete: the rows use these only.
	for _, link := range []string{"sh", "echo", "find", "mkdir", "rm", "sleep", "xargs"} {
		err = errors.Join(err, os.Symlink("busybox", filepath.Join(files, "bin", link)))
	}
	return files, err
}

func (y yardstick) name() string { return "yardstick" }
func (y yardstick) version(context.Context) string {
	return "sh, unshare, overlay, chroot, cp, tar, sha256sum, curl, zstd, " + strings.Fields(zipper("gzip", 1))[0]
}
func (y yardstick) prepare(context.Context, string) error { return nil }

func (y yardstick) script(string, place) *exec.Cmd { return nil }

func (y yardstick) command(r row, p place) (*exec.Cmd, error) {
	if r.script == "" {
		return nil, absent(r.noScript)
	}
	scratch := filepath.Join(p.dir, fmt.Sprintf("run%d", p.run))
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command("sh", "-c", r.script)
	cmd.Dir = scratch
	cmd.Env = slices.Concat(os.Environ(), p.variables(), []string{"TMPDIR=" + tempDir(p.dir), "BASE=" + y.files, "UNSHARE=", "OVERLAY="})
	if os.Geteuid() != 0 {
		cmd.Env = append(cmd.Env, "UNSHARE=--user --map-root-user", "OVERLAY=,userxattr")
	}
	return cmd, nil
}

// The yardstick's scripts. Each does what no builder can do without: make the
// files, show them to a process on an overlay, read them once for a digest.

// stepScript: each step runs in a mount namespace on top of those before.
const stepScript = `set -e
lower=$BASE i=1
while [ $i -le $steps ]; do
	mkdir -p $i/upper $i/work $i/root
	unshare $UNSHARE --mount sh -c 'mount -t overlay overlay -o "$1" "$2" && exec chroot "$2" /bin/sh -c "$3"' sh \
		"lowerdir=$lower,upperdir=$i/upper,workdir=$i/work$OVERLAY" $i/root "echo $i >/step$i"
	tar -c -C $i/upper . | sha256sum >$i/digest
	lower=$i/upper:$lower
	i=$((i+1))
done
`

// makeScript: one step that makes many files.
const makeScript = `set -e
mkdir upper work root
unshare $UNSHARE --mount sh -c 'mount -t overlay overlay -o "$1" root && exec chroot root /bin/sh -c "$2"' sh \
	"lowerdir=$BASE,upperdir=upper,workdir=work$OVERLAY" \
	"i=0; mkdir /f; while [ \$i -lt $files ]; do echo \$i >/f/\$i; i=\$((i+1)); done"
tar -c -C upper . | sha256sum >digest
`

// removeScript: one step that removes many files of the layer below, which is
// there since the first run.
const removeScript = `set -e
if ! [ -d "$DIR/made" ]; then
	mkdir -p "$DIR/made/f"
	i=0
	while [ $i -lt $files ]; do echo $i >"$DIR/made/f/$i"; i=$((i+1)); done
fi
mkdir upper work root
unshare $UNSHARE --mount sh -c 'mount -t overlay overlay -o "$1" root && exec chroot root /bin/sh -c "$2"' sh \
	"lowerdir=$DIR/made:$BASE,upperdir=upper,workdir=work$OVERLAY" "$command && echo 1 >/n"
tar -c -C upper . | sha256sum >digest
`

// deepScript: one step on many layers, which are there since the first run.
// Their names are short: mount(2) takes options of a page at most.
const deepScript = `set -e
if ! [ -d "$DIR/l" ]; then
	mkdir "$DIR/l"
	i=1
	while [ $i -lt $layers ]; do mkdir "$DIR/l/$i"; echo $i >"$DIR/l/$i/step$i"; i=$((i+1)); done
fi
mkdir upper work root
here=$PWD lower=$BASE i=1
while [ $i -lt $layers ]; do lower=$i:$lower; i=$((i+1)); done
cd "$DIR/l"
unshare $UNSHARE --mount sh -c 'mount -t overlay overlay -o "$1" "$2" && exec chroot "$2" /bin/sh -c "$3"' sh \
	"lowerdir=$lower,upperdir=$here/upper,workdir=$here/work$OVERLAY" "$here/root" "echo 1 >/n"
cd "$here"
tar -c -C upper . | sha256sum >digest
`

// copyScript: a copy and a digest of its tar stream.
const copyScript = `set -e
mkdir upper
cp -a "$CONTEXT/src" upper/src
tar -c -C upper . | sha256sum >digest
`

// statScript: looking whether anything changed.
const statScript = `set -e
find "$CONTEXT/src" -printf '%P %i %s %T@ %C@ %m %U %G\n' | sha256sum >digest
`

// stageScript: four steps side by side, then their files together.
const stageScript = `set -e
for i in 0 1 2 3; do
	mkdir -p $i/upper $i/work $i/root
	{
		unshare $UNSHARE --mount sh -c 'mount -t overlay overlay -o "$1" "$2" && exec chroot "$2" /bin/sh -c "$3"' sh \
			"lowerdir=$BASE,upperdir=$i/upper,workdir=$i/work$OVERLAY" $i/root "sleep $sleep && echo $i >/stage"
		tar -c -C $i/upper . | sha256sum >$i/digest
	} &
done
wait
for i in 0 1 2 3; do
	mkdir -p copy$i
	cp -a $i/upper/stage copy$i/stage$i
	tar -c -C copy$i . | sha256sum >copy$i/digest
done
`
