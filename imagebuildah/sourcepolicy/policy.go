package sourcepolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strings"

	"github.com/stratabuild/strata/define"
)

// Policy is a list of rules.
type Policy struct{ rules []rule }

// Source is what a rule judges: an identifier, and what is known besides, such
// as http.checksum.
type Source struct {
	Identifier string
	Attrs      map[string]string
}

const (
	// MaxFile bounds a policy's file, in bytes.
	MaxFile = 4 << 20
	// maxConversions bounds how often one source is changed, as BuildKit does.
	maxConversions = 20
	// maxIdentifier bounds what conversions make of a source, in bytes.
	maxIdentifier = 64 << 10
)

type action int

const (
	allow action = iota
	deny
	convert
)

type rule struct {
	action      action
	identifier  string
	pattern     *regexp.Regexp // nil: the identifier is exact
	constraints []constraint
	updates     *updates
}

type constraint struct {
	key, value string
	equal      bool
	pattern    *regexp.Regexp // instead of value
}

type updates struct {
	Identifier string            `json:"identifier"`
	Attrs      map[string]string `json:"attrs"`
}

// document is the JSON form. The words may be the numbers that protobuf gives
// them.
type document struct {
	Version int64 `json:"version"`
	Rules   []struct {
		Action   json.RawMessage `json:"action"`
		Selector *struct {
			Identifier  string          `json:"identifier"`
			MatchType   json.RawMessage `json:"matchType"`
			MatchType2  json.RawMessage `json:"match_type"`
			Constraints []*struct {
				Key       string          `json:"key"`
				Value     string          `json:"value"`
				Condition json.RawMessage `json:"condition"`
			} `json:"constraints"`
		} `json:"selector"`
		Updates *updates `json:"updates"`
	} `json:"rules"`
}

// Parse reads a policy. Version is 0 or 1.
func Parse(data []byte) (*Policy, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("has more than %d bytes: %w", MaxFile, define.ErrInvalid)
	}
	var doc document
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("want a JSON object {\"rules\": [...]} in the form of BuildKit's source policy: %w: %w", err, define.ErrInvalid)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows the policy: %w", define.ErrInvalid)
	}
	if doc.Version < 0 || doc.Version > 1 {
		return nil, fmt.Errorf("version %d: want 1: %w", doc.Version, define.ErrUnsupported)
	}
	p := &Policy{}
	for n, r := range doc.Rules {
		if r.Selector == nil {
			return nil, fmt.Errorf("rule %d: want a selector: %w", n+1, define.ErrInvalid)
		}
		how, err := word(r.Action, "ALLOW", "DENY", "CONVERT")
		if err != nil {
			return nil, fmt.Errorf("rule %d: action: %w", n+1, err)
		}
		made := rule{action: action(how), identifier: r.Selector.Identifier, updates: r.Updates}
		if made.action == convert && (r.Updates == nil || r.Updates.Identifier == "" && len(r.Updates.Attrs) == 0) {
			return nil, fmt.Errorf("rule %d: CONVERT wants updates: %w", n+1, define.ErrInvalid)
		}
		match := r.Selector.MatchType
		if match == nil {
			match = r.Selector.MatchType2
		}
		kind, err := word(match, "WILDCARD", "EXACT", "REGEX")
		if err == nil {
			made.pattern, err = pattern(kind, r.Selector.Identifier)
		}
		if err != nil {
			return nil, fmt.Errorf("rule %d: selector %q: %w", n+1, r.Selector.Identifier, err)
		}
		for _, c := range r.Selector.Constraints {
			if c == nil {
				return nil, fmt.Errorf("rule %d: a constraint is null: %w", n+1, define.ErrInvalid)
			}
			how, err := word(c.Condition, "EQUAL", "NOTEQUAL", "MATCHES")
			k := constraint{key: c.Key, value: c.Value, equal: how == 0}
			if err == nil && how == 2 {
				k.pattern, err = regexp.Compile(c.Value)
			}
			if err != nil {
				return nil, fmt.Errorf("rule %d: constraint %s: %w", n+1, c.Key, err)
			}
			made.constraints = append(made.constraints, k)
		}
		p.rules = append(p.rules, made)
	}
	return p, nil
}

// word reads one of some words, or its number; nothing is the first.
func word(raw json.RawMessage, words ...string) (int, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return 0, nil
	}
	var s string
	var n int
	if json.Unmarshal(raw, &s) == nil {
		for i, w := range words {
			if s == w {
				return i, nil
			}
		}
	} else if json.Unmarshal(raw, &n) == nil && n >= 0 && n < len(words) {
		return n, nil
	}
	return 0, fmt.Errorf("%s: want one of %s: %w", raw, strings.Join(words, ", "), define.ErrInvalid)
}

// pattern compiles a selector: a wildcard (* is any text), nothing for an
// exact one, or a regular expression.
func pattern(kind int, text string) (*regexp.Regexp, error) {
	switch kind {
	case 0:
		quoted := regexp.QuoteMeta(text)
		if strings.Contains(quoted, `\*\*`) {
			return nil, fmt.Errorf("** is no wildcard, * is: %w", define.ErrInvalid)
		}
		text = `^` + strings.ReplaceAll(quoted, `\*`, `(.*)`) + `$`
	case 1:
		return nil, nil
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, define.ErrInvalid)
	}
	return re, nil
}

func (r *rule) matches(s Source) bool {
	for _, c := range r.constraints {
		value := s.Attrs[c.key]
		if c.pattern != nil {
			if !c.pattern.MatchString(value) {
				return false
			}
		} else if (value == c.value) != c.equal {
			return false
		}
	}
	return r.identifier == s.Identifier || r.pattern != nil && r.pattern.MatchString(s.Identifier)
}

// change applies a conversion and reports whether it changed anything.
func (r *rule) change(s *Source) bool {
	to := r.updates.Identifier
	if to == "" {
		to = r.identifier
	}
	if r.pattern != nil && r.pattern.MatchString(s.Identifier) {
		if r.updates.Identifier == "" {
			to = s.Identifier // only attributes change
		} else {
			to = r.pattern.ReplaceAllString(s.Identifier, to)
		}
	}
	changed := to != s.Identifier
	s.Identifier = to
	for k, v := range r.updates.Attrs {
		if have, ok := s.Attrs[k]; !ok || have != v {
			s.Attrs[k] = v
			changed = true
		}
	}
	return changed
}

// Evaluate returns what a source becomes. One that is denied is
// define.ErrInvalid. A nil policy allows everything.
func (p *Policy) Evaluate(s Source) (Source, error) {
	if p == nil {
		return s, nil
	}
	first := s.Identifier
	if s.Attrs = maps.Clone(s.Attrs); s.Attrs == nil {
		s.Attrs = map[string]string{}
	}
	for range maxConversions + 1 {
		changed, denied := p.pass(&s)
		if changed && len(s.Identifier) <= maxIdentifier {
			continue
		}
		switch {
		case changed:
			return s, fmt.Errorf("source %s: the source policy makes more than %d bytes of it: %w", first, maxIdentifier, define.ErrInvalid)
		case denied && s.Identifier != first:
			return s, fmt.Errorf("source %s (%s before the source policy converted it) is denied by the source policy: %w", s.Identifier, first, define.ErrInvalid)
		case denied:
			return s, fmt.Errorf("source %s is denied by the source policy: %w", first, define.ErrInvalid)
		}
		return s, nil
	}
	return s, fmt.Errorf("source %s: the source policy converts it more than %d times: %w", first, maxConversions, define.ErrInvalid)
}

func (p *Policy) pass(s *Source) (changed, denied bool) {
	for i := range p.rules {
		r := &p.rules[i]
		if !r.matches(*s) {
			continue
		}
		switch r.action {
		case allow:
			denied = false
		case deny:
			denied = true
		case convert:
			if r.change(s) {
				return true, false
			}
		}
	}
	return false, denied
}
