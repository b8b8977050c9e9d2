package security

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// tries is how often a race is tried: so many steps are executed against it.
func tries(t *testing.T) int {
	t.Helper()
	if s := os.Getenv("STRATA_SECURITY_TRIES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("STRATA_SECURITY_TRIES=%s: want a number", s)
		}
		return n
	}
	return 40
}

// progress says how far a long race is.
func progress(t *testing.T, before, now int) {
	if now/500 > before/500 {
		t.Logf("%d tries", now)
	}
}

// attempts is how many steps a build has begun, as it says, without FROM.
func attempts(stderr string) int {
	return max(1, strings.Count("\n"+stderr, "\nSTEP ")-1)
}

// thorough reports a run that has time.
func thorough() bool { return os.Getenv("STRATA_SECURITY_TRIES") != "" }

func raceAttacks() []attack {
	return []attack{
		{[]int{24, 25, 37, 38}, "a directory of a cache is exchanged", cacheMountRace},
		{[]int{12, 19}, "the context is exchanged", contextRace},
		{[]int{7}, "layers are unpacked at once", layerRace},
	}
}

// cacheMountRace: a step exchanges a directory of
// a cache mount for a link to the canary while others mount it.
func cacheMountRace(p *place) {
	t := p.t
	flip := p.context(map[string]string{"Containerfile": `FROM localhost/busybox
RUN --mount=type=cache,id=race,target=/c cd /c; while test ! -e stop; do mkdir -p s; mv s t; ln -s ` + p.canary + ` s; rm s; mv t s; done
`})
	stop := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nRUN --mount=type=cache,id=race,target=/c touch /c/stop\n"})
	// A step whose mount is refused is the last of its build.
	use := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\n" + strings.Repeat(`RUN --mount=type=cache,id=race,source=s,target=/c cat /c/file; echo broken >/c/file; touch /c/new; true
RUN --mount=type=cache,id=race,target=/r --mount=type=tmpfs,target=/r/s/sub --mount=type=bind,target=/r/s/dir ls /r/s/dir >/dev/null; true
`, 10)})
	var background sync.WaitGroup
	background.Go(func() {
		// Not p.run: it goes on for longer than a minute.
		cmd := exec.Command(p.binary, "build", "--no-cache", flip)
		cmd.Env, cmd.Dir = p.env, p.work
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("the step that exchanges: %v: %s", err, out)
		}
	})
	time.Sleep(300 * time.Millisecond)
	for n := 0; n < tries(t) && !t.Failed(); {
		_, stderr, _ := p.run("", "build", "--no-cache", use)
		before := n
		n += attempts(stderr)
		progress(t, before, n)
	}
	p.ok("", "build", "--no-cache", stop)
	background.Wait()
	p.check()
}

// contextRace: the context is changed while it is copied.
func contextRace(p *place) {
	t := p.t
	dir := p.context(map[string]string{
		"Containerfile": "FROM localhost/busybox\nCOPY --chmod=600 d /d/\nCOPY d/ /e/\nADD d/file /f/\nCOPY --from=x d /g/\n" +
			"RUN --mount=source=d,target=/m --mount=from=x,source=d/dir,target=/n,rw cat /m/file; cat /n/sub; echo broken >/n/sub; true\n", "d/file": "ours\n", "d/dir/sub": "ours\n",
	})
	d, aside, link := filepath.Join(dir, "d"), filepath.Join(p.work, "aside"), filepath.Join(p.work, "link")
	p.must(os.Symlink(p.canary, link))
	done := make(chan struct{})
	var background sync.WaitGroup
	background.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			_ = os.Rename(d, aside)
			_ = os.Rename(link, d)
			_ = os.Rename(d, link)
			_ = os.Rename(aside, d)
		}
	})
	for i, n := 0, 0; n < tries(t) && !t.Failed(); i++ {
		_, stderr, _ := p.run("", "build", "--no-cache", "--build-context", "x="+dir, "-t", "race", dir)
		before := n
		n += attempts(stderr)
		progress(t, before, n)
		if i%50 == 49 && p.search(filepath.Join(p.work, "store")) != "" {
			break
		}
	}
	close(done)
	background.Wait()
	p.check()
}

// layerRace: images whose layers exchange directories for links
// are unpacked at the same time.
func layerRace(p *place) {
	t := p.t
	out, _ := p.ok("", "images", "-q")
	base := strings.TrimSpace(out)
	names := []string{}
	for i := range 8 {
		layout := p.layout(
			archive(t, []member{{kind: '5', name: "d"}, {kind: '5', name: "d/dir"}, {kind: '0', name: "d/file", content: "x" + strconv.Itoa(i)}}),
			archive(t, []member{
				{kind: '2', name: "d", link: p.canary}, {kind: '0', name: "d/file", content: "broken"}, {kind: '2', name: "e", link: p.canary},
				{kind: '0', name: "e/file", content: "broken"}, {kind: '5', name: "e/dir", mode: 0o777},
			}),
			archive(t, []member{
				{kind: '0', name: "d/file", content: "broken"}, {kind: '0', name: "e/.wh.file"}, {kind: '5', name: "d/dir", mode: 0o777}, {kind: '0', name: "d/.wh..wh..opq"},
			}))
		names = append(names, "oci:"+layout+":x")
	}
	for i := range max(1, tries(t)/len(names)) {
		progress(t, (i-1)*len(names), i*len(names))
		var all sync.WaitGroup
		for _, n := range names {
			all.Go(func() { p.run("", "pull", "-q", n) })
		}
		all.Wait()
		out, _ := p.ok("", "images", "-q")
		for _, id := range strings.Fields(out) {
			if id != base {
				p.run("", "rmi", id)
			}
		}
		if t.Failed() {
			break
		}
	}
	p.check()
}
