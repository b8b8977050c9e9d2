package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// move is an image on its way between a store, a registry and files.
type move struct {
	verb string // push, pull, archive or folder
	zip  string // gzip or zstd
	// there: the other side has everything already.
	there bool
	// layers are the parts of the context that the yardstick moves, each as a
	// layer.
	layers []string
}

// packed reports that the image lies in the registry before anything moves:
// the same for all tools when it is pulled, and for the yardstick, which has
// no warm-up that would push it, also when it is pushed again.
func (m *move) packed(tool string) bool {
	return m != nil && (m.verb == "pull" || m.verb == "push" && m.there && tool == "yardstick")
}

const (
	insecure = "--tls-verify=false"
	pushed   = "bench:1" // name below the registry's
)

// args are what strata, buildah and podman are called with.
func (m *move) args(p place) []string {
	switch m.verb {
	case "pull":
		return []string{"pull", "-q", insecure, p.registry + "/" + pushed}
	case "archive":
		return []string{"push", "-q", "localhost/bench", p.expand("oci-archive:$DIR/archive$N.tar")}
	case "folder":
		return []string{"push", "-q", "localhost/bench", p.expand("dir:$DIR/export$N")}
	}
	return []string{"push", "-q", insecure, "--compression-format", m.zip, "localhost/bench", "docker://" + p.registry + "/" + pushed}
}

// transferRows move images between stores, registries and files.
func transferRows(s scale) []row {
	big := func(dir string) error {
		return errors.Join(makeHalf(dir, s.transfer), containerfile(dir, "COPY src /src"))
	}
	parts := make([]string, s.blobs-1)
	for i := range parts {
		parts[i] = fmt.Sprintf("src/h%03d", i)
	}
	many := func(dir string) error {
		lines := make([]string, len(parts))
		for i, part := range parts {
			lines[i] = fmt.Sprintf("COPY %s /h%03d", part, i)
			if err := makeHalves(filepath.Join(dir, "src"), i, s.transfer/s.blobs); err != nil {
				return err
			}
		}
		return containerfile(dir, lines...)
	}
	one := []string{"src"}
	var list []row
	for _, c := range []struct {
		name    string
		context func(string) error
		layers  []string
	}{
		{fmt.Sprintf("%d MiB in one layer", s.transfer), big, one},
		{fmt.Sprintf("%d MiB in %d layers", s.transfer, s.blobs), many, parts},
	} {
		for _, zip := range []string{"gzip", "zstd"} {
			name := c.name + ", " + zip
			add := func(name string, r row, m move, script string) {
				m.zip, m.layers = zip, c.layers
				r.name, r.context, r.registry, r.move = name, c.context, true, &m
				r.fresh, r.bulky, r.cached = !m.there, true, m.there
				r.script, r.noScript = script, noProgram(zip)
				if r.noScript != "" {
					r.script = ""
				}
				list = append(list, r)
			}
			add("push "+name, row{built: true}, move{verb: "push"}, pushScript(zip, c.layers))
			add("push "+name+", all there", row{built: true}, move{verb: "push", there: true}, pushedScript)
			add("pull "+name, row{}, move{verb: "pull"}, pullScript(zip, len(c.layers)))
			add("pull "+name+", all there", row{}, move{verb: "pull", there: true}, pulledScript)
		}
	}
	return append(list,
		row{
			name: fmt.Sprintf("export %d MiB as an OCI archive", s.transfer), context: big, built: true, fresh: true, bulky: true,
			move: &move{verb: "archive", zip: "gzip"}, script: archiveScript,
		},
		row{
			name: fmt.Sprintf("export %d MiB as a directory", s.transfer), context: big, built: true, fresh: true, bulky: true,
			move: &move{verb: "folder"}, script: "tar -c -C \"$CONTEXT\" src | tee out.tar | sha256sum >digest\n",
		},
	)
}

// noProgram says what the yardstick of transfers lacks here, or "".
func noProgram(zip string) string {
	for _, program := range []string{"curl", zip} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed"
		}
	}
	return ""
}

// zipper is the yardstick's program for layers: one stream gets two threads,
// of many two run at once. pigz is gzip with threads, where it is installed.
func zipper(zip string, layers int) string {
	threads := 2
	if layers > 1 {
		threads = 1
	}
	_, err := exec.LookPath("pigz")
	switch {
	case zip == "zstd":
		return fmt.Sprintf("zstd -q -3 -T%d", threads)
	case err != nil:
		return "gzip"
	}
	return fmt.Sprintf("pigz -p %d", threads)
}

// pushScript packs, hashes and sends each layer in one pass, as the
// distribution specification has it: POST, PATCH with the content, PUT with
// the digest.
func pushScript(zip string, layers []string) string {
	return `set -e
printf '%s\n' ` + strings.Join(layers, " ") + ` | xargs -P 2 -n 1 sh -ec '
dir=$(mktemp -d -p .); cd "$dir"; mkfifo blob
to=http://$REGISTRY$(curl -sSf -X POST -D - -o /dev/null "http://$REGISTRY/v2/bench/blobs/uploads/" | tr -d "\r" | sed -n "s/^[Ll]ocation: //p")
sha256sum <blob >digest & hash=$!
tar -c -C "$CONTEXT" "$1" | ` + zipper(zip, len(layers)) + ` | tee blob |
	curl -sSf -o /dev/null -X PATCH -H "Expect:" -H "Content-Type: application/octet-stream" -T - "$to"
wait $hash
read d rest <digest
curl -sSf -o /dev/null -X PUT "$to?digest=sha256:$d"
' sh
`
}

// pushedScript asks for each blob, and puts the manifest.
const pushedScript = `set -e
sed "s|.*|http://$REGISTRY/v2/bench/blobs/&|" "$IMAGE/digests" | xargs curl -sSfI >answers
curl -sSf -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary "@$IMAGE/manifest.json" "http://$REGISTRY/v2/bench/manifests/1"
`

// pullScript does what the digests of an image ask for: the blob and its
// content are hashed, and unpacked, in one pass.
func pullScript(zip string, layers int) string {
	unzip := zipper(zip, layers)
	if zip == "zstd" {
		unzip = "zstd -q"
	}
	return `set -e
mkdir -p out/src
xargs -P 2 -n 1 <"$IMAGE/digests" sh -ec '
dir=$(mktemp -d -p .); cd "$dir"; mkfifo blob content
sha256sum <blob >digest & a=$!
sha256sum <content >diffid & b=$!
curl -sSf "http://$REGISTRY/v2/bench/blobs/$1" | tee blob | ` + unzip + ` -dc | tee content | tar -x -C ../out
wait $a; wait $b
read d rest <digest
[ "sha256:$d" = "$1" ]
' sh
`
}

// pulledScript asks for the manifest.
const pulledScript = `curl -sSf -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://$REGISTRY/v2/bench/manifests/1" >manifest
`

// archiveScript packs the files as a layer into a file, and hashes it.
const archiveScript = `set -e
mkfifo blob
sha256sum <blob >digest & hash=$!
tar -c -C "$CONTEXT" src | $(command -v pigz >/dev/null && echo pigz -p 2 || echo gzip) | tee blob >archive
wait $hash
`

// makeHalf makes content half of which compresses.
func makeHalf(dir string, mib int) error {
	if mib < 10 {
		return makeHalves(filepath.Join(dir, "src"), 0, mib)
	}
	for i := range mib / 10 {
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
