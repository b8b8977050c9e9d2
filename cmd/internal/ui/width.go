package ui

import (
	"strings"

	"github.com/mattn/go-runewidth"
)

// cells counts columns as terminals outside East Asia do, whatever the
// locale: an ambiguous character that is taken for wide would only leave a
// column empty, one taken for narrow would break the region.
var cells = &runewidth.Condition{EastAsianWidth: false}

// width is the columns of a drawn line, whose only escape sequences are our
// own colours.
func width(s string) int {
	n := 0
	for len(s) > 0 {
		if k := colourLen(s); k > 0 {
			s = s[k:]
			continue
		}
		i := strings.IndexByte(s[1:], 0x1b)
		if i < 0 {
			return n + cells.StringWidth(s)
		}
		n += cells.StringWidth(s[:i+1])
		s = s[i+1:]
	}
	return n
}

// truncate cuts a drawn line to the columns, keeping its colours whole.
func truncate(s string, columns int) string {
	if width(s) <= columns {
		return s
	}
	var b strings.Builder
	room := columns - 1 // for the mark of the cut
	for len(s) > 0 {
		if k := colourLen(s); k > 0 {
			b.WriteString(s[:k])
			s = s[k:]
			continue
		}
		end := strings.IndexByte(s[1:], 0x1b) + 1
		if end == 0 {
			end = len(s)
		}
		if part := s[:end]; room > 0 {
			cut := cells.Truncate(part, room, "")
			b.WriteString(cut)
			room -= cells.StringWidth(cut)
			if cut != part {
				room = 0
				b.WriteString("~")
			}
		}
		s = s[end:]
	}
	return b.String()
}

// colourLen is the length of the colour sequence that s starts with, or 0.
func colourLen(s string) int {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0
	}
	return strings.IndexByte(s, 'm') + 1
}
