package check

import (
	"context"
	"io"
)

// Targets is the document of frontend.targets.
type Targets struct {
	Targets []Target `json:"targets"`
	Sources [][]byte `json:"sources"`
}

// Target is a stage, as written.
type Target struct {
	Name        string    `json:"name,omitempty"`
	Default     bool      `json:"default,omitempty"`
	Description string    `json:"description,omitempty"`
	Base        string    `json:"base,omitempty"`
	Platform    string    `json:"platform,omitempty"`
	Location    *Location `json:"location,omitempty"`
}

// List lists the stages. The error is about the context or the build files.
func List(ctx context.Context, o Options) (doc *Targets, err error) {
	in, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = in.close(err) }()
	f, err := in.parse()
	if err != nil {
		return nil, err
	}
	doc = &Targets{Sources: in.data()}
	for i := range f.Stages {
		s := &f.Stages[i]
		doc.Targets = append(doc.Targets, Target{Name: s.Name, Default: i == len(f.Stages)-1, Description: s.Doc,
			Base: s.Base, Platform: s.Platform, Location: in.at(s.From)})
	}
	return doc, nil
}

// WriteText writes the table that docker buildx prints.
func (t *Targets) WriteText(w io.Writer) error {
	rows := [][]string{{"TARGET", "DESCRIPTION"}}
	for _, target := range t.Targets {
		name := target.Name
		switch {
		case target.Default && name == "":
			name = "(default)"
		case target.Default:
			name += " (default)"
		}
		rows = append(rows, []string{clean(name), clean(target.Description)})
	}
	return table(w, 1, rows, false)
}
