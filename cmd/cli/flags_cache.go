package cli

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// cacheFlags say which caches elsewhere are read and written.
type cacheFlags struct{ from, to []string }

func (c *cacheFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&c.from, "cache-from", nil, "look for results of steps in this `cache`, too: a repository, type=registry,ref=REPOSITORY or type=local,src=DIRECTORY; or in this image, if it was built with --cache-to type=inline")
	fs.StringArrayVar(&c.to, "cache-to", nil, "write results of steps to this `cache`: a repository, type=registry,ref=REPOSITORY or type=local,dest=DIRECTORY; type=inline writes into the image which of its layers each step made; with mounts=true what RUN --mount=type=cache holds, too")
}

func (c *cacheFlags) options(cmd *cobra.Command, o *imagebuildah.Options) error {
	if (len(c.from) > 0 || len(c.to) > 0) && o.Layers != nil && !*o.Layers {
		return fmt.Errorf("--cache-from and --cache-to want layers: leave out --layers=false: %w", define.ErrInvalid)
	}
	// What is the case anyway may be said: such a record is of the image's own steps.
	inline := func(v string) bool { return v == "type=inline" || v == "type=inline,mode=min" }
	to := slices.DeleteFunc(slices.Clone(c.to), inline)
	o.InlineCache = len(to) < len(c.to)
	for _, list := range []struct {
		flag, dir string
		values    []string
		places    *[]imagebuildah.CachePlace
	}{{"cache-from", "src", c.from, &o.CacheFrom}, {"cache-to", "dest", to, &o.CacheTo}} {
		for _, value := range list.values {
			places, err := cachePlaces(list.flag, list.dir, value)
			if err != nil {
				return err
			}
			*list.places = append(*list.places, places...)
		}
	}
	return nil
}

// cachePlaces reads a value: buildah's, repositories between commas, or
// docker's, pairs between commas.
func cachePlaces(flag, dir, value string) (places []imagebuildah.CachePlace, err error) {
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return nil, fmt.Errorf("--%s %q: want a repository, or key=value pairs between commas: %w", flag, value, define.ErrInvalid)
	}
	add := func(kind, ref string) error {
		p, err := imagebuildah.NewCachePlace(kind, ref)
		if err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
		places = append(places, p)
		return nil
	}
	if !slices.ContainsFunc(fields, func(f string) bool { return strings.Contains(f, "=") }) {
		for _, ref := range fields {
			if err := add("registry", ref); err != nil {
				return nil, err
			}
		}
		return places, nil
	}
	mounts := false
	attrs := map[string]string{}
	for _, f := range fields {
		key, v, ok := strings.Cut(f, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--%s %q: %q: want key=value: %w", flag, value, f, define.ErrInvalid)
		}
		attrs[strings.ToLower(key)] = v
	}
	kind := attrs["type"]
	if kind == "inline" && flag == "cache-to" {
		return nil, fmt.Errorf("--cache-to %q: the record in an image is of its own steps: write type=inline: %w", value, define.ErrUnsupported)
	}
	where := map[string]string{"registry": "ref", "local": dir}[kind]
	if where == "" {
		return nil, fmt.Errorf("--%s: type=%s is not in this version of strata; use type=registry or type=local: %w", flag, kind, define.ErrUnsupported)
	}
	for key, v := range attrs {
		switch {
		case key == "type", key == where:
		case key == "mounts" && flag == "cache-to" && (v == "true" || v == "false"):
			mounts = v == "true"
		// What is the case anyway.
		case key == "mode" && v == "max" && flag == "cache-to", key == "ignore-error" && v == "true":
		default:
			return nil, fmt.Errorf("--%s: %s=%s of type=%s is not in this version of strata: %w", flag, key, v, kind, define.ErrUnsupported)
		}
	}
	if attrs[where] == "" {
		return nil, fmt.Errorf("--%s %q: want %s=: %w", flag, value, where, define.ErrInvalid)
	}
	if err = add(kind, attrs[where]); err == nil {
		places[0].Mounts = mounts
	}
	return places, err
}
