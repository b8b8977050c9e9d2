package expand

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/stratabuild/strata/define"
)

// MaxResult is how many bytes the variables of one word may add to it.
const MaxResult = 1 << 20

// MaxTotal is how many bytes variables may add to all words of a build for one
// platform: a thousand lines of ENV a1=$a0 would hold a gigabyte.
const MaxTotal = 64 << 20

// Bounds against words that only an attack contains. BuildKit's lexer
// recurses for each ${name:-word}, copying what is inside at each level, and
// a stack overflow cannot be caught in Go.
const (
	maxNesting     = 10_000
	maxNestingCost = 1 << 27
	// maxReplaced bounds what ${name//pattern/text} may build in memory
	// before the result can be measured.
	maxReplaced = 64 << 20
	// maxWildcards bounds one pattern, and maxPatternValue the values in a
	// word whose patterns hold variables: a match costs the product of the
	// pattern's wildcards and the value's length.
	maxWildcards    = 32
	maxPatternValue = 4 << 10
)

var (
	errTooLarge = fmt.Errorf("the expanded text is larger than %d bytes", MaxResult)
	errTotal    = fmt.Errorf("the variables of the file fill in more than %d bytes together", MaxTotal)
	errTooDeep  = errors.New("too many substitutions like ${name:-word}")
	errPattern  = fmt.Errorf("a pattern with more than %d wildcards", maxWildcards)
	errLexer    = errors.New("the word cannot be read")
)

// lookup is a view of variables that counts what it hands out.
type lookup struct {
	get   func(string) (string, bool)
	names func() []string
	left  int
	each  int // most bytes of one value
	over  bool
}

// Get implements shell.EnvGetter. Beyond the bound it hands out nothing, and
// the result is thrown away afterwards.
func (l *lookup) Get(name string) (string, bool) {
	v, ok := l.get(name)
	if len(v) > l.left || len(v) > l.each {
		l.over = true
		return "", ok
	}
	l.left -= len(v)
	return v, ok
}

// Keys implements shell.EnvGetter.
func (l *lookup) Keys() []string { return l.names() }

// lexer is one way of reading words.
type lexer struct {
	escape rune
	// raw keeps quotes (heredocs).
	raw bool
	// split makes several words of one.
	split bool
	// spend is told how many bytes variables gave; nil is told nothing.
	spend func(int) error
}

// expand reads one word. The unmatched names are those that have no value.
func (x lexer) expand(word string, get func(string) (string, bool), names func() []string) (words []string, unmatched map[string]struct{}, err error) {
	if strings.IndexByte(word, '$') < 0 && x.plain(word) {
		return []string{word}, nil, nil
	}
	if err := checkWord(word); err != nil {
		return nil, nil, invalid(word, err)
	}
	if x.spend != nil {
		// Checks go on behind an error: what is spent is spent.
		if err := x.spend(0); err != nil {
			return nil, nil, invalid(word, err)
		}
	}
	text, err := encode(word)
	if err != nil {
		return nil, nil, invalid(word, err)
	}
	wildcards, variable := patterns(word, x.escape)
	if wildcards > maxWildcards {
		return nil, nil, invalid(word, errPattern)
	}
	each, all := maxValue(word, x.escape)
	if variable {
		each = min(each, maxPatternValue)
	}
	env := &lookup{get: get, names: names, left: all, each: each}
	lex := shell.NewLex(x.escape)
	lex.SkipProcessQuotes = x.raw
	var result string
	err = guard(func() (err error) {
		if x.split {
			words, err = lex.ProcessWords(text, env)
			return err
		}
		result, unmatched, err = lex.ProcessWord(text, env)
		words = []string{result}
		return err
	})
	size := 0
	for i, w := range words {
		size += len(w)
		if text != word {
			words[i] = decode(w)
		}
	}
	if env.over || size > MaxResult+len(word) {
		return nil, nil, invalid(word, errTooLarge)
	}
	if err == nil && x.spend != nil {
		err = x.spend(all - env.left)
	}
	if err != nil {
		return nil, nil, invalid(word, err)
	}
	return words, unmatched, nil
}

// The lexer's scanner replaces bytes that are not UTF-8, and prints about
// them. They pass it as characters of a private plane, 0x80 as stand+0x80.
const stand rune = 0x10_FE00

var errStand = errors.New("bytes that are not UTF-8 beside characters for private use")

// encode replaces invalid bytes by their stand-ins.
func encode(word string) (string, error) {
	if strings.IndexByte(word, 0) >= 0 {
		return "", errors.New("a NUL byte")
	}
	if utf8.ValidString(word) {
		return word, nil
	}
	var b strings.Builder
	for i := 0; i < len(word); {
		r, size := utf8.DecodeRuneInString(word[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteRune(stand + rune(word[i]))
		case r >= stand && r <= stand+0xff:
			return "", errStand
		default:
			b.WriteString(word[i : i+size])
		}
		i += size
	}
	return b.String(), nil
}

// decode undoes encode. Values of variables may hold stand-ins of their own
// only by intent, and lose nothing but them.
func decode(word string) string {
	var b strings.Builder
	for i := 0; i < len(word); {
		r, size := utf8.DecodeRuneInString(word[i:])
		if r > stand && r <= stand+0xff {
			b.WriteByte(byte(r - stand))
		} else {
			b.WriteString(word[i : i+size])
		}
		i += size
	}
	return b.String()
}

// plain reports whether reading word cannot change it.
func (x lexer) plain(word string) bool {
	if x.split || strings.ContainsRune(word, x.escape) {
		return false
	}
	// The lexer drops blanks after "<<" no more than elsewhere, but replaces
	// invalid UTF-8; leave all that is unusual to it.
	for i := 0; i < len(word); i++ {
		c := word[i]
		if c >= 0x80 || c == '<' || !x.raw && (c == '\'' || c == '"') {
			return false
		}
	}
	return true
}

// lexerPrefix is how BuildKit's lexer begins its errors; the word comes again
// in ours.
var lexerPrefix = regexp.MustCompile(`(?s)^failed to process ".*": `)

// invalid says which word was wrong, in one line, and is define.ErrInvalid.
func invalid(word string, err error) error {
	if len(word) > 80 {
		word = word[:77] + "..."
	}
	text := lexerPrefix.ReplaceAllString(err.Error(), "")
	if strings.Contains(text, "modifier (") && strings.ContainsRune(text, utf8.RuneError) {
		text = "a ${ without its }" // the lexer takes the end for a modifier
	}
	return &wordError{fmt.Sprintf("%s in %q", text, word)}
}

type wordError struct{ text string }

func (e *wordError) Error() string        { return e.text }
func (e *wordError) Is(target error) bool { return target == define.ErrInvalid }

// guard turns a panic of BuildKit's lexer into an error.
func guard(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = errLexer
		}
	}()
	return f()
}

// checkWord refuses words that would exhaust the lexer.
func checkWord(word string) error {
	n := 0
	for rest := word; ; {
		i := strings.Index(rest, "${")
		if i < 0 {
			break
		}
		rest = rest[i+2:]
		if end := strings.IndexFunc(rest, notName); end < 0 || rest[end] != '}' {
			n++
		}
	}
	if n > maxNesting || n*len(word) > maxNestingCost {
		return errTooDeep
	}
	return nil
}

func notName(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }

// maxValue bounds the values that a word may use, each and together, so that
// the replacements ${name/pattern/text} in it cannot build more than
// maxReplaced: each can put its text between any two bytes of the value, and
// they nest.
func maxValue(word string, escape rune) (each, all int) {
	depth, literal := replacements(word, escape)
	room := float64(maxReplaced) / float64(len(word)+values)
	switch {
	case depth == 0:
		return MaxResult, MaxResult
	case literal:
		return min(MaxResult, int(room)), MaxResult
	}
	each = int(math.Pow(room, 1/float64(depth+1)))
	return each, each * values
}

// patterns looks at the patterns of ${name#pattern} and its kin: the most
// wildcards of one, and whether one holds a variable. It sees too much rather
// than too little where quotes hide the end of one.
func patterns(word string, escape rune) (wildcards int, variable bool) {
	for i := strings.Index(word, "${"); i >= 0; i = strings.Index(word, "${") {
		word = word[i+2:]
		end := strings.IndexFunc(word, notName)
		if end < 0 || !strings.ContainsRune("#%/", rune(word[end])) {
			continue
		}
		pattern := word[end+1:]
		for at := 0; at < len(pattern); at++ {
			if c := pattern[at]; c == '\'' || c == '"' {
				break
			} else if c == '}' && (at == 0 || rune(pattern[at-1]) != escape) {
				pattern = pattern[:at]
			}
		}
		wildcards = max(wildcards, strings.Count(pattern, "*")+strings.Count(pattern, "?"))
		variable = variable || strings.Contains(pattern, "$")
	}
	return wildcards, variable
}

// values is how many values of the full size a word with nested replacements
// may use.
const values = 16

// replacements returns an upper bound of how deep ${name/pattern/text} nests,
// and whether no pattern or text holds a variable. Where quotes, escapes or a
// "}" in a pattern make the end of one hard to tell, all that the word holds
// count as nested.
func replacements(word string, escape rune) (depth int, literal bool) {
	count, now, deepest := 0, 0, 0
	simple := !strings.ContainsAny(word, `'"`+string(escape))
	literal = true
	var open []bool // for each "${": is it a replacement
	for i := 0; i < len(word); i++ {
		switch {
		case word[i] == '$' && now > 0:
			literal = false
			fallthrough
		case word[i] == '$':
			if i+1 == len(word) || word[i+1] != '{' {
				continue
			}
			rest := word[i+2:]
			end := strings.IndexFunc(rest, notName)
			is := end >= 0 && rest[end] == '/'
			open = append(open, is)
			if is {
				count++
				now++
				deepest = max(deepest, now)
				pattern := strings.TrimPrefix(rest[end+1:], "/")
				stop := strings.IndexByte(pattern, '/')
				simple = simple && stop >= 0 && !strings.ContainsAny(pattern[:stop], "}{$")
			}
		case word[i] == '}' && len(open) > 0:
			if open[len(open)-1] {
				now--
			}
			open = open[:len(open)-1]
		}
	}
	if simple {
		return deepest, literal
	}
	return count, count == 1 && strings.Count(word, "$") == 1
}
