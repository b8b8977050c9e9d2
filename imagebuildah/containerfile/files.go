package containerfile

import (
	"bytes"
	"errors"
	"strings"
)

// Source is one of several files that are read as one (several -f).
type Source struct {
	Name    string
	Content []byte
}

// ParseFiles reads several files as if they were one, in order. Places in
// errors, warnings and instructions are those of the file they stand in. An
// instruction may not begin in one file and end in the next. RuleError's
// error is one too.
func ParseFiles(files []Source, contexts ...string) (*File, error) {
	f, err := ParseFilesWith(files, Options{Contexts: contexts})
	if err != nil {
		return nil, err
	}
	if err := f.RuleError(); err != nil {
		return nil, err
	}
	return f, nil
}

// ParseFilesWith is ParseFiles with all options, and leaves RuleError to the
// caller.
func ParseFilesWith(files []Source, o Options) (*File, error) {
	if len(files) == 1 {
		return parse(files[0].Name, files[0].Content, o)
	}
	names := make([]string, len(files))
	contents := make([][]byte, len(files))
	starts := make([]int, len(files)) // lines before each file
	line := 0
	for i, f := range files {
		names[i] = f.Name
		// A byte order mark is one only at the beginning of what is parsed.
		contents[i] = bytes.TrimPrefix(f.Content, []byte("\uFEFF"))
		starts[i] = line
		line += 1 + bytes.Count(contents[i], []byte("\n"))
	}
	place := func(file *string, line *int) {
		if *line < 1 {
			return
		}
		at := 0
		for i := range starts {
			if *line > starts[i] {
				at = i
			}
		}
		*file, *line = names[at], *line-starts[at]
	}
	f, err := parse(strings.Join(names, ", "), bytes.Join(contents, []byte("\n")), o)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			place(&e.File, &e.Line)
		}
		return nil, err
	}
	for i := range f.Args {
		place(&f.Args[i].File, &f.Args[i].Line)
	}
	for i := range f.Stages {
		s := &f.Stages[i]
		place(&s.From.File, &s.From.Line)
		for j := range s.Instructions {
			place(&s.Instructions[j].File, &s.Instructions[j].Line)
		}
	}
	for i := range f.Warnings {
		w := &f.Warnings[i]
		rows := w.EndLine - w.Line
		place(&w.File, &w.Line)
		w.EndLine = w.Line + rows
	}
	return f, nil
}
