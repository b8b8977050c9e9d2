package imagestore

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
)

// Filters select images. Values of one key are alternatives, except label's,
// which must all match; different keys must all match.
type Filters map[string][]string

// FilterKeys are the keys that images can be selected by.
var FilterKeys = []string{"before", "dangling", "id", "intermediate", "label", "readonly", "reference", "since", "until"}

// ParseFilters reads "key=value" words; after is another word for since. Only
// the given keys are allowed.
func ParseFilters(words, keys []string) (Filters, error) {
	f := Filters{}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if key == "after" {
			key = "since"
		}
		if !ok || value == "" {
			return nil, fmt.Errorf("--filter %q: want key=value: %w", w, define.ErrInvalid)
		}
		if !slices.Contains(keys, key) {
			return nil, fmt.Errorf("--filter %q: want one of %s: %w", w, strings.Join(keys, ", "), define.ErrInvalid)
		}
		switch key {
		case "dangling", "intermediate", "readonly":
			if _, err := strconv.ParseBool(value); err != nil {
				return nil, fmt.Errorf("--filter %q: want true or false: %w", w, define.ErrInvalid)
			}
		case "reference":
			if _, err := path.Match(value, ""); err != nil {
				return nil, fmt.Errorf("--filter %q: malformed pattern: %w", w, define.ErrInvalid)
			}
		case "until":
			if _, err := ParseUntil(value, time.Now()); err != nil {
				return nil, fmt.Errorf("--filter %q: %w", w, err)
			}
		}
		f[key] = append(f[key], value)
	}
	return f, nil
}

// ParseUntil reads a point in time: a duration before now (24h), seconds
// since 1970, a date or an RFC 3339 time.
func ParseUntil(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return time.Unix(n, 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("want a duration such as 24h, a date, an RFC 3339 time or seconds since 1970: %w", define.ErrInvalid)
}

// Find looks an image up by name or ID, for before= and since=.
type Find func(name string) (define.ImageID, error)

// Select returns the images that all filters match.
func Select(st *store.Store, images []*Image, f Filters, find Find) ([]*Image, error) {
	var tests []func(*Image) (bool, error)
	for _, key := range slices.Sorted(maps.Keys(f)) {
		t, err := test(st, images, key, f[key], find)
		if err != nil {
			return nil, err
		}
		tests = append(tests, t)
	}
	var out []*Image
	for _, i := range images {
		all := true
		for _, t := range tests {
			ok, err := t(i)
			if err != nil {
				return nil, err
			}
			if !ok {
				all = false
				break
			}
		}
		if all {
			out = append(out, i)
		}
	}
	return out, nil
}

func test(st *store.Store, images []*Image, key string, values []string, find Find) (func(*Image) (bool, error), error) {
	switch key {
	case "dangling":
		return truth(values, (*Image).Dangling), nil
	case "intermediate":
		return truth(values, func(i *Image) bool { return i.Intermediate }), nil
	case "readonly":
		return truth(values, func(i *Image) bool { return i.ReadOnly }), nil
	case "id":
		return anyOf(values, func(i *Image, v string) bool {
			return strings.HasPrefix(i.ID, strings.TrimPrefix(v, "sha256:"))
		}), nil
	case "reference":
		return anyOf(values, func(i *Image, v string) bool { return slices.ContainsFunc(i.Names, reference(v)) }), nil
	case "label":
		return func(i *Image) (bool, error) { return hasLabels(st, i, values) }, nil
	case "until":
		return until(values)
	}
	return relative(images, key == "before", values, find)
}

func truth(values []string, is func(*Image) bool) func(*Image) (bool, error) {
	return anyOf(values, func(i *Image, v string) bool {
		want, _ := strconv.ParseBool(v) // checked by ParseFilters
		return is(i) == want
	})
}

func anyOf(values []string, match func(*Image, string) bool) func(*Image) (bool, error) {
	return func(i *Image) (bool, error) {
		return slices.ContainsFunc(values, func(v string) bool { return match(i, v) }), nil
	}
}

func until(values []string) (func(*Image) (bool, error), error) {
	at, err := ParseUntil(values[len(values)-1], time.Now())
	if err != nil {
		return nil, err
	}
	return func(i *Image) (bool, error) { return i.Created.Before(at), nil }, nil
}

// relative selects the images made before (or after) all of the named ones.
func relative(images []*Image, before bool, values []string, find Find) (func(*Image) (bool, error), error) {
	var times []time.Time
	for _, v := range values {
		id, err := find(v)
		if err != nil {
			return nil, err
		}
		for _, i := range images {
			if i.ImageID() == id {
				times = append(times, i.Created)
			}
		}
	}
	return func(i *Image) (bool, error) {
		for _, t := range times {
			if before && !i.Created.Before(t) || !before && !i.Created.After(t) {
				return false, nil
			}
		}
		return true, nil
	}, nil
}

// reference matches a full name in any of the spellings people use for it:
// with and without the tag, from any of its path's elements on.
func reference(pattern string) func(string) bool {
	return func(full string) bool {
		repo, _ := SplitName(full)
		for _, n := range []string{full, repo} {
			for {
				if ok, err := path.Match(pattern, n); ok && err == nil {
					return true
				}
				_, rest, found := strings.Cut(n, "/")
				if !found {
					break
				}
				n = rest
			}
		}
		return false
	}
}

// MatchName reports whether a word of the user's names the image: as
// reference= does, but literally.
func MatchName(full, word string) bool {
	escape := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
	return reference(escape.Replace(word))(full)
}

func hasLabels(st *store.Store, i *Image, wants []string) (bool, error) {
	stored, err := image.Load(st, i.ImageID())
	if err != nil {
		return false, err
	}
	for _, w := range wants {
		key, value, hasValue := strings.Cut(w, "=")
		got, ok := stored.Config.Labels[key]
		if !ok || hasValue && got != value {
			return false, nil
		}
	}
	return true, nil
}

// SplitName splits a full name into repository and tag; tag is "" for a name
// with a digest or without a tag.
func SplitName(full string) (repository, tag string) {
	if r, _, ok := strings.Cut(full, "@"); ok {
		return r, ""
	}
	if i := strings.LastIndexByte(full, ':'); i > strings.LastIndexByte(full, '/') {
		return full[:i], full[i+1:]
	}
	return full, ""
}
