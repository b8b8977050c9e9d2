package security

// mountAttacks give the options of RUN --mount that change or copy what a step
// sees something of the host's to change. CANARY stands for the canary's path.
func mountAttacks() []attack {
	const from = "FROM localhost/busybox\n"
	return buildAttacks([]build{
		{rows: "22", name: "propagation to the host", args: []string{"--cap-add", "SYS_ADMIN"}, files: map[string]string{"sub/kept": ""},
			file: from + "RUN --mount=target=/x,rshared --mount=type=cache,target=/y,bind-propagation=shared " +
				"grep -q master: /proc/self/mountinfo && exit 9; mkdir -p /y/sub; for d in /x/sub /y/sub; do mount -t tmpfs x $d && touch $d/new; done; true\n" +
				"RUN --mount=target=/x --mount=type=cache,target=/y test ! -e /x/sub/new && test ! -e /y/sub/new\n"},
		{rows: "12", name: "U through links of the context", files: map[string]string{"d/link": "-> CANARY/file", "d/dir": "-> CANARY", "top": "-> CANARY"},
			file: from + "USER 12\nRUN --mount=source=d,target=/x,U stat -c %u /x/link; cat /x/link /x/dir/file; true\n"},
		{rows: "12", name: "U of a link to the host", files: map[string]string{"top": "-> CANARY"},
			file: from + "USER 12\nRUN --mount=source=top,target=/x,U,rw cat /x/file; echo broken >/x/file; true\n", fails: "*"},
		{rows: "21", name: "U of a stage's links", file: from + "RUN mkdir /d && ln -s CANARY /d/l && ln -s / /r\n" + from +
			"USER 12\nRUN --mount=from=0,source=/r/CANARY,target=/x,U cat /x/file; true\n", fails: "*"},
		{rows: "25", name: "U of a cache with links", file: from + "RUN --mount=type=cache,target=/c ln -sfn CANARY /c/l; ln -sfn CANARY/file /c/f\n" +
			"USER 12\nRUN --mount=type=cache,target=/c,U cat /c/f /c/l/file; true\n"},
		{rows: "12", name: "no-dereference", files: map[string]string{"l": "-> CANARY", "f": "-> CANARY/file"},
			file: from + "RUN --mount=source=l,target=/l,no-dereference --mount=source=f,target=/f,no-dereference,rw cat /l/file /f; echo broken >/f; echo broken >/l/file; true\n"},
		{rows: "37", name: "mounts below a mounted link", files: map[string]string{"l": "-> CANARY"},
			file: from + "RUN --mount=source=l,target=/l,no-dereference --mount=type=tmpfs,target=/l/sub --mount=type=cache,target=/l/dir/new cat /l/file; true\n", fails: "*"},
		{rows: "41,12", name: "tmpcopyup through links", file: from + "RUN ln -s CANARY /d; ln -s / /r; mkdir /e && ln -s CANARY /e/l\n" +
			"RUN --mount=type=tmpfs,target=/e,tmpcopyup readlink /e/l; cat /e/l/file; true\nRUN --mount=type=tmpfs,target=/d,tmpcopyup cat /d/file; true\n", fails: "*"},
		{rows: "41", name: "tmpcopyup of what a link makes of the host", file: from + "RUN ln -s / /r\nRUN --mount=type=tmpfs,target=/r/CANARY,tmpcopyup cat /r/CANARY/file; true\n", fails: "*"},
		{rows: "36", name: "tmpcopyup of the kernel's", file: from + "RUN ln -s /proc/self /p; ln -s /dev /q\nRUN --mount=type=tmpfs,target=/p/fd,tmpcopyup true\n", fails: "*"},
		{rows: "53", name: "a device asks for the host", files: map[string]string{
			"../cdi/a.yaml": "cdiVersion: 1.0.0\nkind: v.com/c\ndevices: [{name: a, containerEdits: {mounts: [{hostPath: CANARY, containerPath: /x}]}}]\n"},
			file: from + "RUN --device=v.com/c=a cat /x/file\n", args: []string{"--cdi-config-dir", "cdi"}, fails: "allow it with --allow device"},
	})
}
