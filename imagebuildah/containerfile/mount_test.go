package containerfile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// mountsOf reads the mounts of "RUN --mount=options..."; $A is "1".
func mountsOf(t *testing.T, options ...string) ([]Mount, error) {
	t.Helper()
	text := "FROM x\nRUN"
	for _, o := range options {
		text += " --mount=" + o
	}
	f, err := Parse("f", []byte(text+" a\n"))
	if err != nil {
		return nil, err
	}
	in := f.Stages[0].Instructions[0]
	in.Command = in.Fresh()
	expand := func(word string) (string, error) {
		if word == "$BAD" {
			return "", fmt.Errorf("bad word")
		}
		return strings.ReplaceAll(word, "$A", "1"), nil
	}
	if c, ok := in.Command.(interface {
		Expand(instructions.SingleWordExpander) error
	}); ok {
		if err := c.Expand(expand); err != nil {
			return nil, err
		}
	}
	return in.Mounts(expand)
}

// The rows "RUN --mount=type=..." of buildah's own options.
func TestMountOptions(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{
		"target=/x":                   "{Propagation: NonRecursive:false Relabel: Chown:false NoSUID:false NoDev:false NoExec:false NoDereference:false TmpfsMode:<nil> CopyUp:false} 0",
		"U,target=/x,Z,rslave,noexec": "{Propagation:rslave NonRecursive:false Relabel:private Chown:true NoSUID:false NoDev:false NoExec:true NoDereference:false TmpfsMode:<nil> CopyUp:false} 0",
		"target=/x,z=true,Z=false,U=false,bind-propagation=shared,slave=no": "slave=no: want true or false",
		"target=/x,z,Z=false,relabel=private,relabel=shared":                "{Propagation: NonRecursive:false Relabel:shared Chown:false NoSUID:false NoDev:false NoExec:false NoDereference:false TmpfsMode:<nil> CopyUp:false} 0",
		"type=cache,target=/x,NoSuid,NODEV=$A,bind-nonrecursive":            "{Propagation: NonRecursive:true Relabel: Chown:false NoSUID:true NoDev:true NoExec:false NoDereference:false TmpfsMode:<nil> CopyUp:false} 0",
		`"tmpfs-size=1k",type=tmpfs,target=/x,tmpcopyup`:                    "{Propagation: NonRecursive:false Relabel: Chown:false NoSUID:false NoDev:false NoExec:false NoDereference:false TmpfsMode:<nil> CopyUp:true} 1024",
		"type=tmpfs,target=/x,tmpfs-size=$A":                                "{Propagation: NonRecursive:false Relabel: Chown:false NoSUID:false NoDev:false NoExec:false NoDereference:false TmpfsMode:<nil> CopyUp:false} 1",
		"type=tmpfs,target=/x,tmpfs-size=0":                                 "tmpfs-size=0: want bytes",
		"type=tmpfs,target=/x,tmpfs-size=99999999999999999999g":             "tmpfs-size=99999999999999999999g: want bytes",
		"type=tmpfs,target=/x,tmpfs-mode=8":                                 "tmpfs-mode=8: want octal",
		"type=tmpfs,target=/x,tmpfs-mode=17777":                             "tmpfs-mode=17777: want octal",
		"type=tmpfs,target=/x,tmpfs-mode":                                   "tmpfs-mode wants a value",
		"type=tmpfs,target=/x,tmpfs-mode=$BAD":                              "bad word",
		"type=tmpfs,target=/x,U":                                            "key U is not for type=tmpfs",
		"type=ssh,z":                                                        "key z is not for type=ssh",
		"type=secret,id=a,nosuid":                                           "key nosuid is not for type=secret",
		"type=cache,target=/x,no-dereference":                               "key no-dereference is not for type=cache",
		"target=/x,tmpcopyup":                                               "key tmpcopyup is not for type=bind",
		"target=/x,bind-propagation=rshare":                                 "want one of private, rprivate, shared, rshared, slave, rslave; did you mean rshared",
		"target=/x,consistency=never":                                       "consistency=never: want",
		"target=/x,u":                                                       "u wants a value",
		"target=/x,unbindable":                                              "unbindable wants a value",
		"target=/x,dev":                                                     "dev wants a value",
		"U":                                                                 "the target is missing",
	} {
		list, err := mountsOf(t, options)
		got := ""
		switch {
		case err != nil:
			got = err.Error()
		case len(list) == 1:
			got = fmt.Sprintf("%+v %d", list[0].MountOptions, list[0].SizeLimit)
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s\nwant %s", options, got, want)
		}
	}
}

// Options stay with their mount.
func TestMountsInOrder(t *testing.T) {
	t.Parallel()
	list, err := mountsOf(t, "target=/a,U", "type=tmpfs,target=/b,noexec", "target=/c", "type=secret,id=s", "target=/d,z")
	if err != nil || len(list) != 5 {
		t.Fatal(list, err)
	}
	var got []string
	for _, m := range list {
		got = append(got, fmt.Sprintf("%s:%v:%v:%s", m.Target, m.Chown, m.NoExec, m.Relabel))
	}
	if want := "/a:true:false: /b:false:true: /c:false:false: :false:false: /d:false:false:shared"; strings.Join(got, " ") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzMountOptions(f *testing.F) {
	for _, s := range []string{
		"U,Z,z,relabel=shared,target=/x", `"target=/a,b",noexec`, "type=tmpfs,target=/x,tmpfs-size=1g,tmpfs-mode=0700,tmpcopyup",
		"bind-propagation=rshared,target=/x", `""U"",target=/x`, "type=cache,target=/x,nosuid=1,no-dereference", `"U`, "U=$A,,", `U""`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, options string) {
		rest, own := splitMount(options)
		if own == nil && rest != options {
			t.Fatalf("%q became %q", options, rest)
		}
		if again, more := splitMount(rest); more != nil || again != rest {
			t.Fatalf("%q has options left: %v", rest, more)
		}
		if strings.ContainsAny(options, "\n\r\x00 \\<") {
			return
		}
		list, err := mountsOf(t, options)
		if err == nil && len(list) > 1 {
			t.Fatalf("%d mounts", len(list))
		}
	})
}
