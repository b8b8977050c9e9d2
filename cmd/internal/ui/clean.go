package ui

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/stratabuild/strata/define"
)

// Clean makes foreign text safe to print on one line of a terminal: control
// characters, line ends, bidirectional overrides and bytes that are not UTF-8
// become escapes such as \n, \x1b or \u202e, and the user information of a
// URL becomes "***" (a token must not reach a log).
func Clean(s string) string {
	return escape(define.RedactURLs(s))
}

// sentence is Clean for the text of a note or a warning. Where an error ends
// it, the kind of that is for programs: what stands before it says it.
func sentence(s string) string {
	for _, kind := range []error{define.ErrInvalid, define.ErrUnsupported, define.ErrInUse, define.ErrNotFound} {
		s = strings.TrimSuffix(s, ": "+kind.Error())
	}
	return Clean(s)
}

func escape(s string) string {
	i := strings.IndexFunc(s, mustEscape)
	if i < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteByte(' ')
		case r < 0x80 && mustEscape(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case mustEscape(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// mustEscape reports runes that move the cursor, switch a terminal's state or
// reorder what is read: C0, DEL, C1 (ECMA-48), the line and paragraph
// separators and the explicit directional formatting characters (UAX #9).
func mustEscape(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r <= 0x9f:
		return true
	case r == 0x61c, r == 0x200e, r == 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0xfeff:
		return true
	}
	return false
}
