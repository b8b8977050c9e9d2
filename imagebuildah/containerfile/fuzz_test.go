package containerfile

import (
	"errors"
	"strings"
	"testing"
)

// ours fails unless an error is one line that a terminal may show.
func ours(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if strings.ContainsAny(err.Error(), "\n\x1b\x00") {
		t.Fatalf("%q", err)
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("not an *Error: %v", err)
	}
}

// FuzzMount reads the options of RUN --mount.
func FuzzMount(f *testing.F) {
	for _, s := range []string{
		"type=bind,from=x,source=/a,target=/b,rw", "type=cache,target=/c,id=a,sharing=locked,mode=0700,uid=1,gid=2", "type=tmpfs,target=/t,size=1g",
		"type=secret,id=s,env=S,required=true", "type=ssh,id=k,mode=0600", `type=bind,"target=/with,comma"`, "target=$X", "type=,=", "type=cache,target=/x,sharing=", `"`, "size=-1", "type=tmpfs,target=/t,size=99999999999999999999g",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, options string) {
		file, err := Parse("f", []byte("FROM x\nRUN --mount="+options+" a\n"))
		ours(t, err)
		if err != nil {
			return
		}
		for _, s := range file.Stages {
			for _, in := range s.Instructions {
				if in.Fresh() == nil {
					t.Fatalf("%q: no command", in.Text)
				}
			}
		}
	})
}

// FuzzWords reads ports, signals and images' names.
func FuzzWords(f *testing.F) {
	for _, s := range []string{"80/tcp", "1-3/UDP", "1.2.3.4:80:80", "-", "0-65535", "SIGRTMIN+3", "RTMAX-", "9", "reg:5000/a/b:t@sha256:00", "a//b", ":", "@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, word string) {
		ports, err := Ports(word)
		if err == nil && (len(ports) == 0 || len(ports) > 65536) {
			t.Fatalf("%q: %d ports", word, len(ports))
		}
		for _, err := range []error{err, CheckSignal(word)} {
			if err != nil && strings.ContainsAny(err.Error(), "\n\x1b\x00") {
				t.Fatalf("%q: %q", word, err)
			}
		}
		if plausibleImage(word) && word == "" {
			t.Fatal("nothing is no image")
		}
	})
}

// FuzzFiles reads two files as one, with rules and options.
func FuzzFiles(f *testing.F) {
	f.Add("FROM x AS a\n", "COPY --from=a b c\nRUN <<E\n$A\nE\n", "skip=all")
	f.Add("ARG A=$B\nFROM $A", "# check=error=true\nMAINTAINER x\nENV a b", "error=true;experimental=all")
	f.Add("\uFEFFFROM --platform=$TARGETPLATFORM x as Y\n", "FROM y AS y\nEXPOSE 1:2/TCP", "skip=,")
	f.Fuzz(func(t *testing.T, one, two, check string) {
		file, err := ParseFilesWith([]Source{{"one", []byte(one)}, {"two", []byte(two)}}, Options{Contexts: []string{"a"}, Check: check})
		ours(t, err)
		if err != nil {
			return
		}
		for _, w := range file.Warnings {
			if strings.ContainsAny(w.Text, "\n\x1b\x00") || w.Line < 0 || w.EndLine < w.Line || w.File != "one" && w.File != "two" && w.Line > 0 {
				t.Fatalf("%+v", w)
			}
		}
		ours(t, file.RuleError())
	})
}
