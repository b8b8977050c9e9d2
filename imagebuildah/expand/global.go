package expand

import (
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// proxies are the arguments that RUN sees without a declaration, in the
// spelling of the reference; both spellings of each are set.
var proxies = []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"}

func isProxy(name string) bool {
	return slices.Contains(proxies, strings.ToUpper(name)) && !mixed(name)
}

// mixed reports a spelling that is neither all upper nor all lower case.
func mixed(name string) bool {
	return name != strings.ToUpper(name) && name != strings.ToLower(name)
}

// builder holds build arguments that speak to the builder and are never
// declared.
func forBuilder(name string) bool {
	return strings.HasPrefix(name, "BUILDKIT_") || name == "SOURCE_DATE_EPOCH"
}

// Predefined reports a platform argument, which has a value without a
// declaration before the first FROM.
func Predefined(name string) bool {
	switch name {
	case "BUILDPLATFORM", "BUILDOS", "BUILDOSVERSION", "BUILDARCH", "BUILDVARIANT",
		"TARGETPLATFORM", "TARGETOS", "TARGETOSVERSION", "TARGETARCH", "TARGETVARIANT", "TARGETSTAGE":
		return true
	}
	return false
}

// Scope expands words: a Global or a Stage.
type Scope interface {
	// Expand fills in the variables of one word. Errors name the word and are
	// define.ErrInvalid.
	Expand(word string) (string, error)
	// Lookup returns the value of a variable.
	Lookup(name string) (string, bool)
}

var (
	_ Scope = (*Global)(nil)
	_ Scope = (*Stage)(nil)
)

// Global is the scope outside of stages. Declare and DeclareAll are called
// before anything else; after them it is safe for concurrent use.
type Global struct {
	escape    rune
	buildArgs map[string]string
	values    map[string]string

	mu   sync.Mutex
	used map[string]bool // build arguments that something declared

	spent atomic.Int64 // see MaxTotal
}

// NewGlobal makes the scope of one build for one platform. stage is the
// target's name ("" is "default"), which TARGETSTAGE holds. A build argument
// of a platform argument's name replaces its value.
func NewGlobal(buildArgs map[string]string, target, build define.Platform, stage string) *Global {
	if stage == "" {
		stage = "default"
	}
	g := &Global{escape: '\\', buildArgs: map[string]string{}, used: map[string]bool{}}
	for k, v := range buildArgs {
		g.buildArgs[k] = v
	}
	g.values = map[string]string{
		"BUILDPLATFORM": define.FormatPlatform(build), "BUILDOS": build.OS, "BUILDOSVERSION": build.OSVersion,
		"BUILDARCH": build.Architecture, "BUILDVARIANT": build.Variant,
		"TARGETPLATFORM": define.FormatPlatform(target), "TARGETOS": target.OS, "TARGETOSVERSION": target.OSVersion,
		"TARGETARCH": target.Architecture, "TARGETVARIANT": target.Variant,
		"TARGETSTAGE": stage,
	}
	for k := range g.values {
		if v, ok := g.buildArgs[k]; ok {
			g.values[k] = v
			g.used[k] = true
		}
	}
	return g
}

// SetEscape sets the escape character of the file, '\\' until then.
func (g *Global) SetEscape(escape rune) {
	if escape != 0 {
		g.escape = escape
	}
}

// Declare takes one ARG from before the first FROM. The result holds the
// value it has now, nil when it has none.
func (g *Global) Declare(arg instructions.KeyValuePairOptional) (instructions.KeyValuePairOptional, error) {
	if v, ok := g.buildArg(arg.Key); ok {
		arg.Value = &v
	} else if arg.Value != nil {
		v, err := g.Expand(*arg.Value)
		if err != nil {
			return arg, err
		}
		arg.Value = &v
	}
	if arg.Value != nil {
		g.values[arg.Key] = *arg.Value
	} else if v, ok := g.values[arg.Key]; ok {
		arg.Value = &v
	}
	return arg, nil
}

// DeclareAll declares what an ARG instruction holds; errors have its place.
func (g *Global) DeclareAll(in containerfile.Instruction) error {
	cmd, ok := in.Command.(*instructions.ArgCommand)
	if !ok {
		return in.Errorf("only ARG may come before the first FROM")
	}
	for _, arg := range cmd.Args {
		if _, err := g.Declare(arg); err != nil {
			return in.Errorf("%w", err)
		}
	}
	return nil
}

// buildArg returns the value given for a name, and notes that it was asked.
func (g *Global) buildArg(name string) (string, bool) {
	v, ok := g.buildArgs[name]
	if ok {
		g.mu.Lock()
		g.used[name] = true
		g.mu.Unlock()
	}
	return v, ok
}

// Lookup returns a global argument's value.
func (g *Global) Lookup(name string) (string, bool) {
	v, ok := g.values[name]
	return v, ok
}

// Expand fills in a word of FROM.
func (g *Global) Expand(word string) (string, error) {
	words, _, err := lexer{escape: g.escape, spend: g.spend}.expand(word, g.Lookup, g.names)
	if err != nil {
		return "", err
	}
	return words[0], nil
}

func (g *Global) spend(n int) error {
	if g.spent.Add(int64(n)) > MaxTotal {
		return errTotal
	}
	return nil
}

func (g *Global) names() []string {
	names := make([]string, 0, len(g.values))
	for k := range g.values {
		names = append(names, k)
	}
	sort.Strings(names)
	return names
}

// Mention notes that something declares these names, such as a stage that is
// not built, so that Unused leaves them out.
func (g *Global) Mention(args ...instructions.KeyValuePairOptional) {
	for _, a := range args {
		g.buildArg(a.Key)
	}
}

// Unused returns the build arguments that nothing declared, sorted. Those
// that need no declaration are never among them.
func (g *Global) Unused() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var names []string
	for k := range g.buildArgs {
		if !g.used[k] && !isProxy(k) && !forBuilder(k) {
			names = append(names, k)
		}
	}
	sort.Strings(names)
	return names
}
