package define

import (
	"strings"
	"unicode"
)

// RedactURLs replaces the user information of each URL in a text:
// "scheme://user:secret@" becomes "scheme://***@". A lone "git", which is no
// secret, stays.
func RedactURLs(s string) string {
	at := 0
	for {
		i := strings.Index(s[at:], "://")
		if i < 0 {
			return s
		}
		start := at + i + len("://")
		end := strings.IndexFunc(s[start:], func(r rune) bool {
			return r == '/' || r == '?' || r == '#' || r == '"' || r == '\'' || unicode.IsSpace(r)
		})
		authority := s[start:]
		if end >= 0 {
			authority = s[start : start+end]
		}
		at = start
		// The last @ ends the user information: a password may hold one too.
		if j := strings.LastIndexByte(authority, '@'); j > 0 && authority[:j] != "git" {
			s = s[:start] + "***" + s[start+j:]
			at = start + len("***")
		}
	}
}
