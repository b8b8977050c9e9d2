package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
)

// templateFuncs are the functions that docker's and podman's templates have.
var templateFuncs = template.FuncMap{
	"json": func(v any) (string, error) {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err := e.Encode(v)
		return strings.TrimSuffix(b.String(), "\n"), err
	},
	"join":  strings.Join,
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"split": strings.Split,
	"title": func(s string) string {
		if s == "" {
			return s
		}
		return strings.ToUpper(s[:1]) + s[1:]
	},
	"truncate": func(s string, n int) string {
		if r := []rune(s); n >= 0 && len(r) > n {
			return string(r[:n])
		}
		return s
	},
}

// listFormat is a listing's --format: "json", "table", a Go template, or
// "table TEMPLATE", whose columns get a heading.
type listFormat struct {
	json     bool
	plain    bool // the listing's own table
	table    bool // a table of the template's columns
	template *template.Template
	text     string
}

// listFlags say how a list is printed.
type listFlags struct {
	json, noTrunc, quiet bool
	format               string
}

// listFormat checks them before anything is done.
func (f *listFlags) listFormat(sample any) (listFormat, error) {
	format, err := parseListFormat(f.format, sample)
	if err != nil {
		return listFormat{}, err
	}
	if f.format != "" && (f.json || f.quiet) {
		return listFormat{}, fmt.Errorf("--format, --json and --quiet: want one of them: %w", define.ErrInvalid)
	}
	return format, nil
}

// parseListFormat checks a --format before anything is done; sample is an
// item without content, which knows the fields. Shell words rarely hold tabs,
// so \t and \n are read as docker and podman do.
func parseListFormat(s string, sample any) (listFormat, error) {
	f := listFormat{}
	switch s {
	case "", "table":
		f.plain = true
		return f, nil
	case "json":
		f.json = true
		return f, nil
	}
	text, isTable := strings.CutPrefix(s, "table ")
	f.table = isTable
	f.text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := parseTemplate(f.text)
	if err != nil {
		return f, err
	}
	f.template = t
	// Other failures (an index out of range) may be the sample's.
	if err := line(io.Discard, t, sample); err != nil && strings.Contains(err.Error(), noField) {
		return f, err
	}
	return f, nil
}

func parseTemplate(text string) (*template.Template, error) {
	t, err := template.New("format").Funcs(templateFuncs).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("--format %q: %s: %w", text, templateReason(err), define.ErrInvalid)
	}
	return t, nil
}

// templateReason drops the name and place that Go puts before its messages.
func templateReason(err error) string {
	s := strings.TrimPrefix(err.Error(), "template: ")
	if _, rest, ok := strings.Cut(s, "format:"); ok {
		s = rest
		if place, text, ok := strings.Cut(s, ": "); ok && strings.Trim(place, "0123456789:") == "" {
			s = text
		}
	}
	return s
}

const noField = "there is no field "

// fieldReason is templateReason for a template that was executed on v. Of a
// field that v has not, those that it has are said.
func fieldReason(err error, v any) string {
	s := templateReason(err)
	_, rest, ok := strings.Cut(s, ": can't evaluate field ")
	if !ok {
		if _, rest, ok = strings.Cut(s, ": map has no entry for key "); ok {
			return "there is no key " + rest
		}
		return s
	}
	name, of, _ := strings.Cut(rest, " in type ")
	text := noField + name
	t := reflect.TypeOf(v)
	if t == nil || t.String() != of {
		return text
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var fields []string
	for f := range structFields(t) {
		fields = append(fields, f)
	}
	if len(fields) > 0 {
		text += "; want one of " + strings.Join(fields, ", ")
	}
	return text
}

// structFields are the names that a template may use of a struct.
func structFields(t reflect.Type) iter.Seq[string] {
	return func(yield func(string) bool) {
		if t.Kind() != reflect.Struct {
			return
		}
		for _, f := range reflect.VisibleFields(t) {
			if f.IsExported() && !f.Anonymous && !yield(f.Name) {
				return
			}
		}
	}
}

// render writes one line an item. headings maps fields to column headings.
func render[T any](w io.Writer, f listFormat, items []T, headings map[string]string) error {
	tw := w
	if f.table {
		t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
		defer t.Flush()
		tw = t
		if err := line(t, f.template, headings); err != nil {
			return err
		}
	}
	for _, item := range items {
		if err := line(tw, f.template, item); err != nil {
			return err
		}
	}
	return nil
}

// line executes a template and ends its text with one line end.
func line(w io.Writer, t *template.Template, v any) error {
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return fmt.Errorf("--format: %s: %w", fieldReason(err, v), define.ErrInvalid)
	}
	if !bytes.HasSuffix(b.Bytes(), []byte("\n")) {
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

// writeTable writes rows in columns; control characters of foreign text are
// escaped, since a name or a history comes from whoever made the image.
func writeTable(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	for _, row := range rows {
		clean := make([]string, len(row))
		for i, cell := range row {
			clean[i] = ui.Clean(cell)
		}
		if _, err := fmt.Fprintln(t, strings.Join(clean, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}
