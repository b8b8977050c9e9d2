package main

import (
	"fmt"
	"path/filepath"
)

const noContainers = "no plain tool keeps containers"

// commandRows are the scriptable commands, one process each, and a script of
// them.
func commandRows(s scale) []row {
	files := func(dir string) error {
		return makeFiles(filepath.Join(dir, "src"), scale{files: 500, fileSize: s.fileSize})
	}
	none := func(string) error { return nil }
	return []row{
		{name: "version", context: none, args: []string{"version"}, script: ":"},
		{name: "init of a step, from its clone to its first answer", context: none, init: true, noScript: "what it is beyond unshare(1) is strata's"},
		{name: "from", context: none, args: []string{"from", "--name", "c$N", baseName}, noScript: noContainers},
		{
			name: "run true", context: none, once: "B from --name c " + baseName,
			args: []string{"run", "c", "true"}, script: "steps=1\n" + stepScript,
		},
		{name: "config", context: none, once: "B from --name c " + baseName, args: []string{"config", "--env", "A=$N", "c"}, noScript: noContainers},
		{name: "rm", context: none, before: "B from --name r$N " + baseName, args: []string{"rm", "r$N"}, noScript: noContainers},
		{
			name: "script: from, 10 run, copy of 500 files, config, commit, rm", context: files,
			timed: `c=$(B from ` + baseName + `)
for i in 1 2 3 4 5 6 7 8 9 10; do B run "$c" sh -c "echo $i >/step$i"; done
B copy "$c" "$CONTEXT/src" /src >/dev/null
B config --cmd /bin/sh "$c"
B commit -q "$c" localhost/script >/dev/null
B rm "$c" >/dev/null`,
			script: "steps=10\n" + stepScript + copyScript,
		},
		{
			name:    fmt.Sprintf("commit of %d files that copy brought", s.files),
			context: func(dir string) error { return makeFiles(filepath.Join(dir, "src"), s) },
			fresh:   true,
			once:    "c=$(B from --name c " + baseName + "); B copy \"$c\" \"$CONTEXT/src\" /src",
			args:    []string{"commit", "-q", "c", "localhost/commit"},
			script:  copyScript, // the container keeps its files, the layer gets a copy
		},
	}
}
