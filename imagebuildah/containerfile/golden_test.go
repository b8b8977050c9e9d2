package containerfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/stratabuild/strata/define"
)

// Each file of testdata/good and testdata/bad holds a Containerfile and what
// comes of it. UPDATE_GOLDEN=1 writes the latter anew.
func TestCorpus(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"good", "bad"} {
		files, err := filepath.Glob(filepath.Join("testdata", kind, "*.txtar"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no corpus: %v", err)
		}
		for _, file := range files {
			t.Run(kind+"/"+strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
				t.Parallel()
				corpusCase(t, file, kind == "good")
			})
		}
	}
}

func corpusCase(t *testing.T, file string, good bool) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	input, want, contexts := "", -1, []string(nil)
	for i, f := range archive.Files {
		switch f.Name {
		case "Containerfile":
			input = decodeInput(string(f.Data))
		case "contexts":
			contexts = strings.Fields(string(f.Data))
		case "result":
			want = i
		}
	}
	f, err := Parse("Containerfile", []byte(input), contexts...)
	if err == nil {
		err = f.RuleError()
	}
	var got string
	switch {
	case good && err != nil:
		t.Fatal(err)
	case good:
		got = dump(f)
	case err == nil:
		t.Fatal("it is accepted")
	default:
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, define.ErrInvalid) || strings.Contains(err.Error(), "\n") {
			t.Errorf("not an error of ours: %q", err)
		}
		got = strings.TrimSuffix(err.Error(), ": "+define.ErrInvalid.Error()) + "\n"
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if want < 0 {
			archive.Files = append(archive.Files, txtar.File{Name: "result"})
			want = len(archive.Files) - 1
		}
		archive.Files[want].Data = []byte(got)
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want < 0 || got != string(archive.Files[want].Data) {
		t.Errorf("got:\n%swant:\n%s", got, archive.Files[max(want, 0)].Data)
	}
}

// decodeInput lets a corpus file hold what an editor would spoil: ⟨xx⟩ is the
// byte of that hex value.
func decodeInput(s string) string {
	for {
		i := strings.Index(s, "⟨")
		if i < 0 {
			return s
		}
		end := strings.Index(s[i:], "⟩") + i
		var b byte
		_, _ = fmt.Sscanf(s[i+len("⟨"):end], "%02x", &b)
		s = s[:i] + string([]byte{b}) + s[end+len("⟩"):]
	}
}

// dump writes a File and its graph as text.
func dump(f *File) string {
	var b strings.Builder
	if f.Escape != '\\' {
		fmt.Fprintf(&b, "escape %c\n", f.Escape)
	}
	for _, w := range f.Warnings {
		fmt.Fprintf(&b, "warning %d %s: %s\n", w.Line, w.Rule, w.Text)
	}
	for _, ins := range f.Args {
		dumpInstruction(&b, ins)
	}
	for _, s := range f.Stages {
		fmt.Fprintf(&b, "stage %d %q base %q platform %q line %d: %s\n", s.Index, s.Name, s.Base, s.Platform, s.From.Line, s.From.Text)
		for _, ins := range s.Instructions {
			dumpInstruction(&b, ins)
		}
	}
	g, err := f.Graph("", nil)
	if err != nil {
		fmt.Fprintf(&b, "graph: %v\n", err)
		return b.String()
	}
	fmt.Fprintf(&b, "needed %v\n", g.Needed)
	for _, i := range g.Needed {
		if len(g.Deps[i]) > 0 {
			fmt.Fprintf(&b, "%d waits for %v\n", i, g.Deps[i])
		}
	}
	return b.String()
}

func dumpInstruction(b *strings.Builder, ins Instruction) {
	fmt.Fprintf(b, "  %d %s: %s\n", ins.Line, ins.Keyword, ins.Text)
	switch c := ins.Command.(type) {
	case *instructions.RunCommand:
		fmt.Fprintf(b, "    shell %v args %q network %s security %s\n", c.PrependShell, c.CmdLine, instructions.GetNetwork(c), instructions.GetSecurity(c))
		fresh, _ := ins.Fresh().(*instructions.RunCommand)
		_ = fresh.Expand(func(s string) (string, error) { return s, nil })
		for _, m := range instructions.GetMounts(fresh) {
			fmt.Fprintf(b, "    mount %s from %q source %q target %q ro %v id %q sharing %q\n", m.Type, m.From, m.Source, m.Target, m.ReadOnly, m.CacheID, m.CacheSharing)
		}
		for _, f := range c.Files {
			fmt.Fprintf(b, "    heredoc %s chomp %v: %q\n", f.Name, f.Chomp, f.Data)
		}
	case *instructions.CopyCommand:
		fmt.Fprintf(b, "    %q to %q from %q chown %q chmod %q link %v parents %v exclude %q\n", c.SourcePaths, c.DestPath, c.From, c.Chown, c.Chmod, c.Link, c.Parents, c.ExcludePatterns)
		dumpHeredocs(b, c.SourceContents)
	case *instructions.AddCommand:
		fmt.Fprintf(b, "    %q to %q chown %q chmod %q link %v checksum %q exclude %q\n", c.SourcePaths, c.DestPath, c.Chown, c.Chmod, c.Link, c.Checksum, c.ExcludePatterns)
		dumpHeredocs(b, c.SourceContents)
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			fmt.Fprintf(b, "    %q = %q\n", kv.Key, kv.Value)
		}
	case *instructions.LabelCommand:
		for _, kv := range c.Labels {
			fmt.Fprintf(b, "    %q = %q\n", kv.Key, kv.Value)
		}
	case *instructions.ArgCommand:
		for _, a := range c.Args {
			if a.Value == nil {
				fmt.Fprintf(b, "    %q\n", a.Key)
			} else {
				fmt.Fprintf(b, "    %q = %q\n", a.Key, *a.Value)
			}
		}
	case *instructions.CmdCommand:
		fmt.Fprintf(b, "    shell %v args %q\n", c.PrependShell, c.CmdLine)
	case *instructions.EntrypointCommand:
		fmt.Fprintf(b, "    shell %v args %q\n", c.PrependShell, c.CmdLine)
	case *instructions.ShellCommand:
		fmt.Fprintf(b, "    %q\n", c.Shell)
	case *instructions.ExposeCommand:
		fmt.Fprintf(b, "    %q\n", c.Ports)
	case *instructions.VolumeCommand:
		fmt.Fprintf(b, "    %q\n", c.Volumes)
	case *instructions.OnbuildCommand:
		fmt.Fprintf(b, "    %q\n", c.Expression)
	case *instructions.HealthCheckCommand:
		fmt.Fprintf(b, "    %q interval %s timeout %s start %s/%s retries %d\n", c.Health.Test, c.Health.Interval, c.Health.Timeout, c.Health.StartPeriod, c.Health.StartInterval, c.Health.Retries)
	}
}

func dumpHeredocs(b *strings.Builder, contents []instructions.SourceContent) {
	for _, c := range contents {
		fmt.Fprintf(b, "    heredoc %s expand %v: %q\n", c.Path, c.Expand, c.Data)
	}
}
