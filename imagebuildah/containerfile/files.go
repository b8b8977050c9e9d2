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
// instruction may not begin in one file and end in the next.
func ParseFiles(files []Source, contexts ...string) (*File, error) {
	if len(files) == 1 {
		return Parse(files[0].Name, files[0].Content, contexts...)
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
	f, err := Parse(strings.Join(names, ", "), bytes.Join(contents, []byte("\n")), contexts...)
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
		place(&f.Warnings[i].File, &f.Warnings[i].Line)
	}
	return f, nil
}
