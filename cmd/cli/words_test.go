package cli

import (
	"slices"
	"testing"

	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
)

func TestSplitWords(t *testing.T) {
	for line, want := range map[string][]string{
		"":                     nil,
		"  a  b ":              {"a", "b"},
		`a "b c" 'd "e'`:       {"a", "b c", `d "e`},
		`a\ b \"c`:             {"a b", `"c`},
		`"a\n\"b" '' ""`:       {`a\n"b`, "", ""},
		"a\tb\nc":              {"a", "b", "c"},
		`pre"mid dle"'post x'`: {"premid dlepost x"},
	} {
		got, err := splitWords(line)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", line, got, err, want)
		}
	}
	for _, line := range []string{`"`, `'a`, `a\`} {
		if got, err := splitWords(line); err == nil {
			t.Errorf("%q: got %q, want an error", line, got)
		}
	}
}

func FuzzSplitWords(f *testing.F) {
	f.Add(`a "b c" 'd' \e`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitWords(line)
		if err == nil && len(words) > len(line) {
			t.Errorf("%q: %d words", line, len(words))
		}
	})
}

func TestExpandEnv(t *testing.T) {
	img := image.New(define.HostPlatform())
	img.SetEnv("A", "1")
	for value, want := range map[string]string{
		"plain": "plain", "$A": "1", "x${A}y": "x1y", "$A$A": "11", "$NONE.": ".", "$": "$", "${A": "${A", "a$1": "a$1", "$A_": "",
		"$PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	} {
		if got := expandEnv(img, value); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

func TestSplitTriggers(t *testing.T) {
	for value, want := range map[string][]string{
		"RUN a,b":         {"RUN a,b"},
		"RUN a,COPY b c":  {"RUN a", "COPY b c"},
		"RUN a,copy b":    {"RUN a,copy b"},
		"ENV A=1,RUN b,c": {"ENV A=1", "RUN b,c"},
	} {
		if got := splitTriggers(value); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}
