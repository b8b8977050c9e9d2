package transport

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/stratabuild/strata/define"
)

// notFound says that the store has no such image, and which names it has
// that the user may have meant.
func (c *Client) notFound(name string) error {
	err := fmt.Errorf("image %s: %w in the store", show(name), define.ErrNotFound)
	images, listErr := c.raw().Images()
	if listErr != nil {
		return err
	}
	var names []string
	for i := range images {
		names = append(names, images[i].Names...)
	}
	if near := nearest(name, names); len(near) > 0 {
		return fmt.Errorf("%w; it has %s", err, strings.Join(near, ", "))
	}
	return err
}

// nearest returns up to three of the names that differ from the one given by
// a slip of the keyboard, best first.
func nearest(name string, all []string) []string {
	if len(name) > 255 {
		return nil
	}
	type match struct {
		name     string
		distance int
	}
	var found []match
	ask := shortForm(name)
	limit := max(1, min(3, len(ask)/3))
	for _, n := range all {
		have := shortForm(n)
		d := define.Distance(ask, have, limit)
		if d > limit && pathOf(ask) == pathOf(have) {
			d = limit // the same repository with another tag
		}
		if d <= limit {
			found = append(found, match{n, d})
		}
	}
	slices.SortFunc(found, func(a, b match) int {
		return cmp.Or(a.distance-b.distance, strings.Compare(a.name, b.name))
	})
	var out []string
	for _, m := range found[:min(3, len(found))] {
		out = append(out, show(m.name))
	}
	return out
}

// shortForm takes off what users leave away.
func shortForm(name string) string {
	for _, p := range []string{"localhost/", defaultRegistry + "/library/", defaultRegistry + "/"} {
		name = strings.TrimPrefix(name, p)
	}
	return strings.TrimSuffix(name, ":latest")
}
