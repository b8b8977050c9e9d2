package cli

import (
	"encoding/json"
	"errors"
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

// jsonList reads a JSON list of strings. What begins like one and is none is
// an error, since it was hardly meant as words; the program [ is a word.
func jsonList(s string) (list []string, ok bool, err error) {
	inner, begins := strings.CutPrefix(strings.TrimSpace(s), "[")
	if !begins {
		return nil, false, nil
	}
	if err = json.Unmarshal([]byte(s), &list); err == nil {
		return list, true, nil
	}
	if strings.HasPrefix(strings.TrimSpace(inner), `"`) {
		return nil, false, fmt.Errorf("begins like a JSON list and is none (%s): want strings, such as [\"sh\", \"-c\", \"id\"], or plain words: %w", jsonReason(err), define.ErrInvalid)
	}
	return nil, false, nil
}

// jsonReason says what is wrong with a list without the words of Go.
func jsonReason(err error) string {
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return "an element is no string"
	}
	return err.Error()
}

// commandWords reads a command as a JSON list or as words.
func commandWords(s string) ([]string, error) {
	if list, ok, err := jsonList(s); ok || err != nil {
		return list, err
	}
	return splitWords(s)
}
