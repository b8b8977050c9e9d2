package tests

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/tests/ociread"
)

// settingsScript sets and takes back what config can, in an image from scratch
// and in one that is made from that.
const settingsScript = `set -eu
strata=${BUILDER:-strata}
c=$($strata from scratch)
$strata copy -q "$c" "$0" /script
$strata config --env A=1 --env B=2 --label one=1 --label two=2 --port 8080 --port 53/udp --volume /data --user 1:2 \
	--workingdir /work --entrypoint '["/script", "x"]' --cmd 'one "two three"' --stop-signal 15 --author someone \
	--annotation note=text --annotation gone=x --created-by 'a script' --history-comment why \
	--shell '/bin/sh -e' --onbuild 'RUN x' "$c"
$strata config --env B- --label two- --port 53/udp- --annotation gone- "$c"
$strata commit -q "$c" "$1-base"
$strata rm "$c" >/dev/null
c=$($strata from "localhost/$1-base")
$strata copy -q "$c" "$0" /again
$strata config --env C=3 --user '' --cmd '' --entrypoint '/bin/true x' --volume /more --author '' "$c"
$strata commit -q "$c" "$1"
$strata rm "$c" >/dev/null
`

// alignConfigs takes out what differs between strata's image and buildah's on
// purpose, and only that: the list in docs/examples/scripts/README.md.
func alignConfigs(ours, theirs *ociread.Image) {
	mine, other := object(ours.Config["config"]), object(theirs.Config["config"])

	// 1. PATH of images from scratch.
	hasPath := func(v any) bool { return strings.HasPrefix(v.(string), "PATH=") }
	env, _ := mine["Env"].([]any)
	if list, _ := other["Env"].([]any); !slices.ContainsFunc(list, hasPath) {
		env = slices.DeleteFunc(env, func(v any) bool { return v == "PATH="+builder.DefaultPath })
		if mine["Env"] = env; len(env) == 0 {
			delete(mine, "Env")
		}
	}

	// 2. Ports always say their protocol.
	ports := object(other["ExposedPorts"])
	for port := range ports {
		if !strings.Contains(port, "/") {
			delete(ports, port)
			ports[port+"/tcp"] = map[string]any{}
		}
	}

	// 3. What OCI's config does not know, and docker's does, is kept.
	delete(mine, "OnBuild")
	delete(mine, "Shell")

	// 4. Nobody signs images unasked.
	labels := object(other["Labels"])
	if delete(labels, "io.buildah.version"); len(labels) == 0 {
		delete(other, "Labels")
	}

	// 5. Annotations name a base where there is one; its digest is another.
	for _, img := range []*ociread.Image{ours, theirs} {
		a := img.Manifest.Annotations
		for _, key := range []string{"org.opencontainers.image.base.name", "org.opencontainers.image.base.digest"} {
			if v, ok := a[key]; ok && v == "" {
				delete(a, key)
			} else if ok && strings.HasPrefix(v, "sha256:") {
				a[key] = "sha256:*"
			}
		}
	}

	// 6. The history's comments are the user's.
	list, _ := theirs.Config["history"].([]any)
	for _, h := range list {
		if c, _ := object(h)["comment"].(string); strings.HasPrefix(c, "FROM ") {
			delete(object(h), "comment")
		}
	}

	// 7. Times, digests, and the words for what made a layer unless the user
	// has chosen them.
	for _, img := range []*ociread.Image{ours, theirs} {
		delete(img.Config, "created")
		delete(img.Config, "rootfs")
		list, _ := img.Config["history"].([]any)
		for _, h := range list {
			delete(object(h), "created")
			switch object(h)["created_by"] {
			case "strata commit", "/bin/sh":
				object(h)["created_by"] = "*"
			}
		}
	}
}

// object is a JSON object; an empty one for what is none.
func object(v any) map[string]any {
	if m, ok := v.(map[string]any); ok {
		return m
	}
	return map[string]any{}
}

// configText is the image's config, its annotations, and how many layers it
// has.
func configText(t *testing.T, img *ociread.Image) string {
	t.Helper()
	annotations := img.Manifest.Annotations
	if len(annotations) == 0 {
		annotations = nil
	}
	text, err := json.MarshalIndent(map[string]any{
		"config": img.Config, "annotations": annotations, "layers": len(img.Manifest.Layers),
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
