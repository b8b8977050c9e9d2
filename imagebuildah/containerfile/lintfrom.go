package containerfile

import (
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/stratabuild/strata/define"
)

// lintNames reports names that are taken.
func (b *fileBuilder) lintNames() {
	seen := map[string]bool{}
	for i := range b.file.Stages {
		s := &b.file.Stages[i]
		if s.Name == "scratch" || s.Name == "context" {
			rule := &linter.RuleReservedStageName
			b.warn(s.From, rule, rule.Format(s.Name))
		}
		if s.Name != "" && seen[s.Name] {
			rule := &linter.RuleDuplicateStageName
			b.warn(s.From, rule, rule.Format(s.Name))
		}
		seen[s.Name] = true
	}
}

// predefined are the global arguments that exist without a declaration.
var predefined = []string{
	"BUILDPLATFORM", "BUILDOS", "BUILDOSVERSION", "BUILDARCH", "BUILDVARIANT",
	"TARGETPLATFORM", "TARGETOS", "TARGETOSVERSION", "TARGETARCH", "TARGETVARIANT", "TARGETSTAGE",
}

// globals returns the declared global arguments with their defaults, as far
// as these are simple: nil for none.
func (b *fileBuilder) globals() *defaults {
	d := &defaults{lex: shell.NewLex(b.file.Escape), values: map[string]*string{}}
	for _, p := range predefined {
		value := "predefined"
		d.values[p] = &value
	}
	// The variant is often nothing at all.
	for _, p := range []string{"BUILDVARIANT", "TARGETVARIANT", "BUILDOSVERSION", "TARGETOSVERSION"} {
		value := ""
		d.values[p] = &value
	}
	for _, ins := range b.file.Args {
		cmd, _ := ins.Command.(*instructions.ArgCommand)
		for _, a := range cmd.Args {
			if _, known := d.values[a.Key]; known && a.Value == nil {
				continue
			}
			d.values[a.Key] = nil
			if a.Value != nil {
				if result, ok := d.expand(*a.Value); ok {
					d.values[a.Key] = &result.Result
					d.long = d.long || len(result.Result) > longest
				} else {
					d.unclear = true
				}
			}
		}
	}
	return d
}

// defaults is the global scope without build arguments.
type defaults struct {
	lex    *shell.Lex
	values map[string]*string
	// unclear: a default was not expanded; long: one is longer than longest.
	unclear, long bool
}

// longest bounds words and values, in bytes, that expand looks at.
const longest = 512

// Get implements shell.EnvGetter.
func (d *defaults) Get(name string) (string, bool) {
	v := d.values[name]
	if v == nil {
		return "", false
	}
	return *v, true
}

// Keys implements shell.EnvGetter.
func (d *defaults) Keys() []string { return slices.Collect(maps.Keys(d.values)) }

// expand fills in a word when it is one that people write: the bounds on what
// expanding may cost are expand's, not this package's.
func (d *defaults) expand(word string) (result shell.ProcessWordResult, ok bool) {
	const forms = 4
	if d.long || len(word) > longest || nesting(word) > forms || strings.Contains(word, "//") && variable(word) {
		return result, false
	}
	result, err := guard(func() (shell.ProcessWordResult, error) { return d.lex.ProcessWordWithMatches(word, d) })
	return result, err == nil
}

func (b *fileBuilder) lintFrom(s *Stage, globals *defaults) {
	undefined := map[string]bool{}
	report := func(names map[string]struct{}) {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if _, ok := globals.values[name]; !ok && !undefined[name] {
				undefined[name] = true
				rule := &linter.RuleUndefinedArgInFrom
				b.warn(s.From, rule, rule.Format(name, Nearest(name, globals.Keys())))
			}
		}
	}
	if base, ok := globals.expand(s.Base); ok && variable(s.Base) {
		report(base.Unmatched)
		if !globals.unclear && !plausibleImage(base.Result) {
			rule := &linter.RuleInvalidDefaultArgInFrom
			b.warn(s.From, rule, rule.Format(s.Base))
		}
	}
	if s.Platform == "" {
		return
	}
	platform, ok := globals.expand(s.Platform)
	if !ok {
		return
	}
	report(platform.Unmatched)
	switch {
	case len(platform.Matched) == 1 && len(platform.Unmatched) == 0:
		if _, ok := platform.Matched["TARGETPLATFORM"]; ok && platform.Result == "predefined" {
			rule := &linter.RuleRedundantTargetPlatform
			b.warn(s.From, rule, rule.Format(s.Platform))
		}
	case len(platform.Matched)+len(platform.Unmatched) == 0:
		p, err := define.ParsePlatform(platform.Result)
		if err == nil && !strings.Contains(s.Name, p.OS) && !strings.Contains(s.Name, p.Architecture) {
			rule := &linter.RuleFromPlatformFlagConstDisallowed
			b.warn(s.From, rule, rule.Format(platform.Result))
		}
	}
}

// plausibleImage reports whether a name may be an image's: components of
// lower case letters, digits and separators, a registry before, a tag or
// digest after them; or a transport's own form.
func plausibleImage(name string) bool {
	if transport, rest, ok := strings.Cut(name, ":"); ok && rest != "" && slices.Contains(transports, transport) {
		return true
	}
	name, digest, hasDigest := strings.Cut(name, "@")
	if hasDigest && !strings.Contains(strings.Trim(digest, ":"), ":") {
		return false
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		tag := name[i+1:]
		name = name[:i]
		if tag == "" || len(tag) > 128 || strings.ContainsAny(tag[:1], ".-") || strings.ContainsFunc(tag, func(r rune) bool {
			return !alphanumeric(r) && !strings.ContainsRune("_.-", r)
		}) {
			return false
		}
	}
	parts := strings.Split(name, "/")
	for i, part := range parts {
		if i == 0 && len(parts) > 1 && (strings.ContainsAny(part, ".:") || part == "localhost") {
			continue // a registry
		}
		if part == "" || !alphanumeric(rune(part[0])) || !alphanumeric(rune(part[len(part)-1])) || part != strings.ToLower(part) ||
			strings.ContainsFunc(part, func(r rune) bool { return !alphanumeric(r) && !strings.ContainsRune("_.-", r) }) {
			return false
		}
	}
	return true
}

var transports = []string{"docker", "oci", "oci-archive", "docker-archive", "dir", "containers-storage", "docker-daemon", "docker-image"}

func alphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}
