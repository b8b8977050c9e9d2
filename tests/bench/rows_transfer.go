package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// transferRows move images between stores, registries and files.
func transferRows(s scale) []row {
	const name = "$REGISTRY/bench:1"
	big := func(dir string) error {
		return errors.Join(makeHalf(dir, s.transfer), containerfile(dir, "COPY src /src"))
	}
	many := func(dir string) error {
		lines := make([]string, s.blobs-1)
		for i := range lines {
			lines[i] = fmt.Sprintf("COPY src/h%03d /h%03d", i, i)
			if err := makeHalves(filepath.Join(dir, "src"), i, s.transfer/s.blobs); err != nil {
				return err
			}
		}
		return containerfile(dir, lines...)
	}
	const build = `B build -q -t localhost/bench -f "$CONTEXT/Containerfile" "$CONTEXT"`
	const tls = "--tls-verify=false"
	var list []row
	for _, c := range []struct {
		name    string
		context func(string) error
		zip     string
	}{
		{fmt.Sprintf("%d MiB in one layer, gzip", s.transfer), big, "gzip"},
		{fmt.Sprintf("%d MiB in one layer, zstd", s.transfer), big, "zstd"},
		{fmt.Sprintf("%d MiB in %d layers, gzip", s.transfer, s.blobs), many, "gzip"},
		{fmt.Sprintf("%d MiB in %d layers, zstd", s.transfer, s.blobs), many, "zstd"},
	} {
		push := []string{"push", "-q", tls, "--compression-format", c.zip, "localhost/bench", "docker://" + name}
		list = append(list,
			row{
				name: "push " + c.name, context: c.context, once: build, registry: true, fresh: true, args: push,
				script: pushScript(c.zip, "sent"),
			},
			row{name: "push " + c.name + ", all there", context: c.context, once: build, registry: true, cached: true, args: push},
			row{
				name: "pull " + c.name, context: withBlob(c.context, c.zip), registry: true, fresh: true,
				once:   build + "; B push -q " + tls + " --compression-format " + c.zip + " localhost/bench docker://" + name + "; B rmi -f localhost/bench >/dev/null; B prune -f -a >/dev/null 2>&1 || :",
				args:   []string{"pull", "-q", tls, name},
				script: pullScript(c.zip),
			},
			row{
				name: "pull " + c.name + ", all there", context: c.context, registry: true, cached: true,
				once: build + "; B push -q " + tls + " --compression-format " + c.zip + " localhost/bench docker://" + name + "; B pull -q " + tls + " " + name + " >/dev/null",
				args: []string{"pull", "-q", tls, name},
			},
		)
	}
	return append(list,
		row{
			name: fmt.Sprintf("export %d MiB as an OCI archive", s.transfer), context: big, once: build,
			args: []string{"push", "-q", "localhost/bench", "oci-archive:$DIR/archive$N.tar"}, script: pushScript("gzip", "archive"),
		},
		row{
			name: fmt.Sprintf("export %d MiB as a directory", s.transfer), context: big, once: build,
			args: []string{"push", "-q", "localhost/bench", "dir:$DIR/export$N"}, script: "tar -c -C \"$CONTEXT\" src | tee out.tar | sha256sum >digest\n",
		},
	)
}

// zippers are the yardstick's programs, of two threads where they can.
var zippers = map[string]string{"gzip": "(pigz -p 2 2>/dev/null || gzip)", "zstd": "zstd -q -3 -T2"}

// pushScript compresses the files into one, and hashes what they become.
func pushScript(zip, file string) string {
	return "mkfifo blob\nsha256sum <blob >digest &\ntar -c -C \"$CONTEXT\" src | " + zippers[zip] + " | tee blob >" + file + "\nwait\n"
}

// pullScript does what the digests of an image ask for: the blob and its
// content are hashed, and unpacked, in one pass. Without the program there is
// no yardstick.
func pullScript(zip string) string {
	if _, err := exec.LookPath(zip); err != nil {
		return ""
	}
	return `set -e
mkdir out
mkfifo blob content
sha256sum <blob >digest & sha256sum <content >diffid &
cat "$CONTEXT/blob" | tee blob | ` + zip + ` -dc | tee content | tar -x -C out
wait
`
}

// withBlob adds to a context what the yardstick pulls.
func withBlob(context func(string) error, zip string) func(string) error {
	if pullScript(zip) == "" {
		return context
	}
	return func(dir string) error {
		if err := context(dir); err != nil {
			return err
		}
		out, err := exec.Command("sh", "-ec", `tar -c -C "$1" src | `+zippers[zip]+` >"$1/blob"`, "sh", dir).CombinedOutput()
		if err != nil {
			return fmt.Errorf("make the yardstick's blob: %w: %s", err, out)
		}
		return nil
	}
}

// makeHalf makes content half of which compresses.
func makeHalf(dir string, mib int) error {
	for i := range max(1, mib/10) {
		if err := makeHalves(filepath.Join(dir, "src"), i, 10); err != nil {
			return err
		}
	}
	return nil
}

func makeHalves(dir string, n, mib int) error {
	sub := filepath.Join(dir, fmt.Sprintf("h%03d", n))
	if err := os.MkdirAll(sub, 0o755); err != nil {
		return err
	}
	half := int64(max(1, mib)) << 19
	return errors.Join(makeFile(filepath.Join(sub, "random"), half, uint64(n)), os.WriteFile(filepath.Join(sub, "zero"), make([]byte, half), 0o644))
}
