package imagebuildah

import (
	"errors"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
)

func TestRemote(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	const sum = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for name, c := range map[string]struct {
		cmd       instructions.AddCommand
		urls, git []string
		want      error
	}{
		"plain":             {},
		"kept whole":        {cmd: instructions.AddCommand{Unpack: &no}},
		"unpack URL":        {cmd: instructions.AddCommand{Unpack: &yes}, urls: []string{"http://h/a"}},
		"checksum":          {cmd: instructions.AddCommand{Checksum: sum}, urls: []string{"http://h/a"}},
		"checksum of two":   {cmd: instructions.AddCommand{Checksum: sum}, urls: []string{"http://h/a", "http://h/b"}, want: define.ErrInvalid},
		"checksum of none":  {cmd: instructions.AddCommand{Checksum: sum}, want: define.ErrInvalid},
		"checksum's form":   {cmd: instructions.AddCommand{Checksum: "sha256:0"}, urls: []string{"http://h/a"}, want: define.ErrInvalid},
		"checksum's kind":   {cmd: instructions.AddCommand{Checksum: "md5:00"}, urls: []string{"http://h/a"}, want: define.ErrInvalid},
		"keep without git":  {cmd: instructions.AddCommand{KeepGitDir: &yes}, want: define.ErrInvalid},
		"git":               {cmd: instructions.AddCommand{KeepGitDir: &yes}, git: []string{"git://h/r.git#v1:sub"}},
		"git over ssh":      {git: []string{"git@h:r.git"}},
		"git with password": {git: []string{"https://u:p@h/r.git"}, want: define.ErrInvalid},
		"git with token":    {git: []string{"https://token@h/r.git"}, want: define.ErrInvalid},
	} {
		tr := &transfer{urls: c.urls}
		c.cmd.SourcePaths = append(append([]string(nil), c.urls...), c.git...)
		if err := tr.remote(&c.cmd, c.git); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want, got string
		ok        bool
	}{{"", "sha256:a", true}, {"sha256:a", "sha256:a", true}, {"sha256:a", "sha256:b", false}} {
		tr := &transfer{}
		if c.want != "" {
			tr.checksum = "sha256:a"
		}
		if err := tr.verify(&urlSource{file: &buildcontext.Downloaded{Digest: c.got}}); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
