package check

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/stratabuild/strata/imagebuildah/containerfile"
	"github.com/stratabuild/strata/imagebuildah/expand"
)

// Outline is the document of frontend.outline: what a build of the target
// takes.
type Outline struct {
	Name        string     `json:"name,omitempty"`
	Description string     `json:"description,omitempty"`
	Args        []Argument `json:"args,omitempty"`
	Secrets     []Needed   `json:"secrets,omitempty"`
	SSH         []Needed   `json:"ssh,omitempty"`
	Sources     [][]byte   `json:"sources,omitempty"`
}

// Argument is a build argument with the value that it would have.
type Argument struct {
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Value       string    `json:"value,omitempty"`
	Location    *Location `json:"location,omitempty"`
}

// Needed is a secret or an SSH agent that RUN --mount asks for.
type Needed struct {
	Name     string    `json:"name"`
	Required bool      `json:"required,omitempty"`
	Location *Location `json:"location,omitempty"`
}

// argument is an Argument; of a global one, with the names that its default
// mentions. (A stage's default can mention only what the stage declares.)
type argument struct {
	Argument
	mentions []string
}

// outliner gathers an Outline while stages are walked.
type outliner struct {
	*lint
	globals map[string]argument
	// local and used are by stage.
	local []map[string]argument
	used  []map[string]bool
	// secrets and ssh are by stage.
	secrets, ssh [][]Needed
}

// Find tells what the target takes. The error is about the context or the
// build files.
func Find(ctx context.Context, o Options) (doc *Outline, err error) {
	in, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = in.close(err) }()
	f, err := in.parse()
	if err != nil {
		return nil, err
	}
	global, err := in.global(f)
	if err != nil {
		return nil, err
	}
	graph, err := f.Graph(o.Target, global.Expand)
	if err != nil {
		return nil, err
	}
	in.options.Target = fmt.Sprint(graph.Target) // the walk looks at what it needs
	n := len(f.Stages)
	w := &outliner{lint: &lint{input: in, known: map[string]bool{}}, globals: map[string]argument{},
		local: make([]map[string]argument, n), used: make([]map[string]bool, n), secrets: make([][]Needed, n), ssh: make([][]Needed, n)}
	w.seen = w.instruction
	w.declareGlobals(f, global)
	if err := w.run(ctx); err != nil {
		return nil, err
	}
	return w.document(graph), nil
}

func (w *outliner) declareGlobals(f *containerfile.File, global *expand.Global) {
	for _, ins := range f.Args {
		cmd, _ := ins.Command.(*instructions.ArgCommand)
		for _, a := range cmd.Args {
			value, _ := global.Lookup(a.Key)
			arg := w.argument(ins, a, value)
			if _, given := w.options.BuildArgs[a.Key]; !given && a.Value != nil {
				arg.mentions = mentioned(*a.Value)
			}
			w.globals[a.Key] = arg
		}
	}
	for i := range f.Stages {
		w.local[i], w.used[i] = map[string]argument{}, map[string]bool{}
		for _, name := range mentioned(f.Stages[i].Base + " " + f.Stages[i].Platform) {
			w.used[i][name] = true
		}
	}
}

func (w *outliner) argument(ins containerfile.Instruction, a instructions.KeyValuePairOptional, value string) argument {
	return argument{Argument: Argument{Name: a.Key, Description: a.DocComment, Value: value, Location: w.at(ins)}}
}

// mentioned returns the names of variables in a word.
func mentioned(word string) []string {
	var names []string
	for {
		i := strings.IndexByte(word, '$')
		if i < 0 {
			return names
		}
		word = strings.TrimPrefix(word[i+1:], "{")
		end := strings.IndexFunc(word, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		if end < 0 {
			end = len(word)
		}
		if end > 0 {
			names = append(names, word[:end])
		}
		word = word[end:]
	}
}

func (w *outliner) instruction(stage int, ins containerfile.Instruction, cmd instructions.Command, args []instructions.KeyValuePairOptional) {
	switch c := cmd.(type) {
	case *instructions.ArgCommand:
		for n, declared := range args {
			written := c.Args[n]
			w.used[stage][declared.Key] = true
			_, given := w.options.BuildArgs[declared.Key]
			if _, global := w.globals[declared.Key]; written.Value == nil && !given && (global || expand.Predefined(declared.Key)) {
				continue // the global argument is the one that counts
			}
			value := ""
			if declared.Value != nil {
				value = *declared.Value
			}
			w.local[stage][declared.Key] = w.argument(ins, written, value)
		}
	case *instructions.RunCommand:
		w.mounts(stage, ins, c)
	}
}

func (w *outliner) mounts(stage int, ins containerfile.Instruction, c *instructions.RunCommand) {
	for _, m := range instructions.GetMounts(c) {
		id := m.CacheID
		switch m.Type {
		case instructions.MountTypeSecret:
			if id == "" {
				id = m.Source
			}
			if id == "" {
				id = path.Base(m.Target)
			}
			w.secrets[stage] = append(w.secrets[stage], Needed{Name: id, Required: m.Required, Location: w.at(ins)})
		case instructions.MountTypeSSH:
			if id == "" {
				id = "default"
			}
			w.ssh[stage] = append(w.ssh[stage], Needed{Name: id, Required: m.Required, Location: w.at(ins)})
		}
	}
}

// document joins what the stages need, the target's own first.
func (w *outliner) document(graph *containerfile.Graph) *Outline {
	target := &w.file.Stages[graph.Target]
	doc := &Outline{Name: target.Name, Description: target.Doc, Sources: w.data()}
	args := map[string]Argument{}
	secrets, ssh := map[string]Needed{}, map[string]Needed{}
	for _, i := range slices.Backward(graph.Needed) {
		all := maps.Clone(w.globals)
		maps.Copy(all, w.local[i])
		visited := map[string]bool{}
		var use func(name string)
		use = func(name string) {
			a, ok := all[name]
			if !ok || visited[name] {
				return
			}
			visited[name] = true
			if _, ok := args[name]; !ok {
				args[name] = a.Argument
			}
			for _, m := range a.mentions {
				use(m)
			}
		}
		for name := range w.used[i] {
			use(name)
		}
		keep(secrets, w.secrets[i])
		keep(ssh, w.ssh[i])
	}
	doc.Args = slices.SortedFunc(maps.Values(args), func(a, b Argument) int { return order(a.Location, b.Location, a.Name, b.Name) })
	byPlace := func(a, b Needed) int { return order(a.Location, b.Location, a.Name, b.Name) }
	doc.Secrets = slices.SortedFunc(maps.Values(secrets), byPlace)
	doc.SSH = slices.SortedFunc(maps.Values(ssh), byPlace)
	return doc
}

// keep takes the first of each name.
func keep(all map[string]Needed, list []Needed) {
	for _, n := range list {
		if _, ok := all[n.Name]; !ok {
			all[n.Name] = n
		}
	}
}

func order(a, b *Location, nameA, nameB string) int {
	if d := a.SourceIndex - b.SourceIndex; d != 0 {
		return d
	}
	if d := a.line() - b.line(); d != 0 {
		return d
	}
	return strings.Compare(nameA, nameB)
}

// WriteText writes the tables that docker buildx prints.
func (o *Outline) WriteText(w io.Writer) error {
	if o.Name != "" || o.Description != "" {
		name := o.Name
		if name == "" {
			name = "(default)"
		}
		rows := [][]string{{"TARGET:", name}}
		if o.Description != "" {
			rows = append(rows, []string{"DESCRIPTION:", clean(o.Description)})
		}
		if err := table(w, 1, rows, true); err != nil {
			return err
		}
	}
	if len(o.Args) > 0 {
		rows := [][]string{{"BUILD ARG", "VALUE", "DESCRIPTION"}}
		for _, a := range o.Args {
			rows = append(rows, []string{clean(a.Name), clean(a.Value), clean(a.Description)})
		}
		if err := table(w, 3, rows, true); err != nil {
			return err
		}
	}
	for _, part := range []struct {
		title string
		list  []Needed
	}{{"SECRET", o.Secrets}, {"SSH", o.SSH}} {
		if len(part.list) == 0 {
			continue
		}
		rows := [][]string{{part.title, "REQUIRED"}}
		for _, n := range part.list {
			required := ""
			if n.Required {
				required = "true"
			}
			rows = append(rows, []string{clean(n.Name), required})
		}
		if err := table(w, 3, rows, true); err != nil {
			return err
		}
	}
	return nil
}

// table writes rows in columns that are padding blanks apart.
func table(w io.Writer, padding int, rows [][]string, blankAfter bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, padding, ' ', 0)
	for _, r := range rows {
		if _, err := fmt.Fprintln(tw, strings.Join(r, "\t")); err != nil {
			return err
		}
	}
	if err := tw.Flush(); err != nil || !blankAfter {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// clean keeps foreign words in their cell.
func clean(s string) string { return strings.ReplaceAll(printable([]byte(s)), "\t", " ") }
