package main

import (
	"errors"
	"fmt"
	"os"
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
				script: "tar -c -C \"$CONTEXT\" src | " + map[string]string{"gzip": "(pigz -p 2 || gzip)", "zstd": "zstd -3 -T2"}[c.zip] + " 2>/dev/null | cat >blob\n",
			},
			row{name: "push " + c.name + ", all there", context: c.context, once: build, registry: true, cached: true, args: push},
			row{
				name: "pull " + c.name, context: c.context, registry: true, fresh: true,
				once:   build + "; B push -q " + tls + " --compression-format " + c.zip + " localhost/bench docker://" + name + "; B rmi -f localhost/bench >/dev/null; B prune -f -a >/dev/null 2>&1 || :",
				args:   []string{"pull", "-q", tls, name},
				script: copyScript,
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
			args: []string{"push", "-q", "localhost/bench", "oci-archive:$DIR/archive$N.tar"}, script: "tar -cf out.tar -C \"$CONTEXT\" src\n",
		},
		row{
			name: fmt.Sprintf("export %d MiB as a directory", s.transfer), context: big, once: build,
			args: []string{"push", "-q", "localhost/bench", "dir:$DIR/export$N"}, script: "tar -cf out.tar -C \"$CONTEXT\" src\n",
		},
	)
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
