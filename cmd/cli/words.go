package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/stratabuild/strata/define"
)

// splitWords splits a command line at blanks as a shell does, without
// expanding anything: '...' is literal, in "..." a backslash quotes ", \, $, `
// and itself, elsewhere it quotes any character.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	begun := false
	quote := rune(0)
	escaped := false
	for _, r := range line {
		switch {
		case escaped:
			if quote == '"' && !strings.ContainsRune("\"\\$`", r) {
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, begun = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case strings.ContainsRune(" \t\n\r", r):
			if begun {
				words = append(words, word.String())
				word.Reset()
				begun = false
			}
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("a quotation mark or a backslash is left open: %w", define.ErrInvalid)
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// jsonList reads a JSON list of strings.
func jsonList(s string) ([]string, bool) {
	if !strings.HasPrefix(strings.TrimSpace(s), "[") {
		return nil, false
	}
	var list []string
	if err := json.Unmarshal([]byte(s), &list); err != nil {
		return nil, false
	}
	return list, true
}

// commandWords reads a command as a JSON list or as words.
func commandWords(s string) ([]string, error) {
	if list, ok := jsonList(s); ok {
		return list, nil
	}
	return splitWords(s)
}
