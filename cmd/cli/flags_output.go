package cli

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strings"

	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// outputAttrs are the attributes of each --output type.
var outputAttrs = map[string][]string{
	"image":    {"name", "push"},
	"registry": {"name", "compression"},
	"oci":      {"dest"},
	"docker":   {"dest"},
	"tar":      {"dest"},
	"local":    {"dest"},
}

// parseOutput reads one value of --output: "type=TYPE[,key=value...]", a
// directory, or "-" for a tar stream on standard output.
func parseOutput(s string) (imagebuildah.Output, error) {
	bad := func(format string, v ...any) (imagebuildah.Output, error) {
		return imagebuildah.Output{}, fmt.Errorf("--output %q: %s: %w", s, fmt.Sprintf(format, v...), define.ErrInvalid)
	}
	switch {
	case s == "":
		return bad("want type=TYPE[,dest=PATH], a directory, or -")
	case s == "-":
		return imagebuildah.Output{Type: "tar", Dest: "-"}, nil
	case !strings.Contains(s, "="):
		return imagebuildah.Output{Type: "local", Dest: s}, nil
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return bad("want key=value pairs between commas")
	}
	o := imagebuildah.Output{Attrs: map[string]string{}}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok || key == "" {
			return bad("%q: want key=value", f)
		}
		switch key = strings.ToLower(key); key {
		case "type":
			o.Type = value
		case "dest":
			o.Dest = value
		default:
			o.Attrs[key] = value
		}
	}
	if err := checkOutput(s, o); err != nil {
		return o, err
	}
	if o.Type == "docker" && o.Dest == "" {
		// What docker loads into its daemon is an image of the store here.
		o.Type = "image"
	}
	return o, nil
}

func checkOutput(s string, o imagebuildah.Output) error {
	bad := func(format string, v ...any) error {
		return fmt.Errorf("--output %q: %s: %w", s, fmt.Sprintf(format, v...), define.ErrInvalid)
	}
	known, ok := outputAttrs[o.Type]
	switch {
	case o.Type == "":
		return bad("type= is missing; want one of %s", strings.Join(imagebuildah.OutputTypes, ", "))
	case o.Type == "cacheonly":
		return fmt.Errorf("--output type=cacheonly is not in this version of strata: %w", define.ErrUnsupported)
	case !ok:
		return bad("type %q: want one of %s%s", o.Type, strings.Join(imagebuildah.OutputTypes, ", "),
			didYouMean(o.Type, imagebuildah.OutputTypes, ""))
	case o.Dest == "" && slices.Contains(known, "dest") && o.Type != "docker":
		return bad("want dest=PATH")
	case o.Dest != "" && !slices.Contains(known, "dest"):
		return bad("type=%s has no dest", o.Type)
	case o.Type == "local" && o.Dest == "-":
		return bad("a directory cannot go to standard output; use type=tar,dest=-")
	}
	for key, value := range o.Attrs {
		switch {
		case !slices.Contains(known, key):
			return fmt.Errorf("--output: %s= of type=%s is not in this version of strata: %w", key, o.Type, define.ErrUnsupported)
		case key == "push" && value != "true" && value != "false":
			return bad("push=%s: want true or false", value)
		case key == "name" && value == "":
			return bad("name= is empty")
		case key == "compression" && value != "gzip" && value != "zstd":
			return bad("compression=%s: want gzip or zstd", value)
		}
	}
	return nil
}

// outputs reads all values of --output, and --push, and returns the names
// that they add to -t's. An image that is not sent elsewhere needs no output.
func outputs(values []string, push bool) (outs []imagebuildah.Output, names []string, err error) {
	stdout := 0
	for _, v := range values {
		o, err := parseOutput(v)
		if err != nil {
			return nil, nil, err
		}
		if o.Dest == "-" {
			stdout++
		}
		if n := o.Attrs["name"]; n != "" {
			names = append(names, strings.Split(n, ",")...)
		}
		outs = append(outs, o)
	}
	if stdout > 1 {
		return nil, nil, fmt.Errorf("--output: only one output can go to standard output: %w", define.ErrInvalid)
	}
	if push {
		outs = append(outs, imagebuildah.Output{Type: "registry", Attrs: map[string]string{}})
	}
	return outs, names, nil
}
