package expand

import (
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// Stage is the scope of one stage at one point of it. It is used by one
// goroutine at a time.
type Stage struct {
	global *Global
	env    map[string]string // ENV, of the base image and the stage
	args   map[string]string // declared arguments with a value
	// declared are the names in the order of their first declaration.
	declared []string
	// known are the same names.
	known     map[string]struct{}
	undefined map[string]struct{}
}

// Stage makes the scope of a stage whose base image has this environment, in
// the form "NAME=value".
func (g *Global) Stage(baseEnv []string) *Stage {
	s := &Stage{global: g, env: make(map[string]string, len(baseEnv)), args: map[string]string{}, known: map[string]struct{}{}}
	for _, kv := range baseEnv {
		name, value, _ := strings.Cut(kv, "=")
		s.env[name] = value
	}
	return s
}

// Child makes the scope of a stage that begins with this one (FROM name):
// as in BuildKit, it has its environment and its declared arguments.
func (s *Stage) Child() *Stage {
	c := &Stage{global: s.global, env: maps.Clone(s.env), args: maps.Clone(s.args)}
	c.declared, c.known = slices.Clone(s.declared), maps.Clone(s.known)
	return c
}

// Declare takes one ARG of the stage, unexpanded. Its value is the build
// argument, else the default, else the global argument of the name, else what
// an earlier ARG gave. The result holds the value, nil when there is none:
// history and cache keys want this form.
func (s *Stage) Declare(arg instructions.KeyValuePairOptional) (instructions.KeyValuePairOptional, error) {
	if v, ok := s.global.buildArg(arg.Key); ok {
		arg.Value = &v
	} else if arg.Value != nil {
		v, err := s.Expand(*arg.Value)
		if err != nil {
			return arg, err
		}
		arg.Value = &v
	} else if v, ok := s.global.Lookup(arg.Key); ok {
		arg.Value = &v
	}
	if _, again := s.known[arg.Key]; !again {
		s.known[arg.Key] = struct{}{}
		s.declared = append(s.declared, arg.Key)
	}
	if arg.Value != nil {
		s.args[arg.Key] = *arg.Value
	}
	return arg, nil
}

// SetEnv takes one pair of ENV, expanded. All pairs of one instruction are
// expanded before the first is set.
func (s *Stage) SetEnv(name, value string) { s.env[name] = value }

// HasEnv reports whether ENV gives the variable, here or in the base image.
func (s *Stage) HasEnv(name string) bool {
	_, ok := s.env[name]
	return ok
}

// Lookup returns the value of a variable: ENV, else ARG.
func (s *Stage) Lookup(name string) (string, bool) {
	if v, ok := s.env[name]; ok {
		return v, true
	}
	v, ok := s.args[name]
	return v, ok
}

// Names returns the variables that have a value, sorted.
func (s *Stage) Names() []string { return s.names() }

// Size is an upper bound of how many variables have a value.
func (s *Stage) Size() int { return len(s.env) + len(s.args) }

func (s *Stage) names() []string {
	names := make([]string, 0, len(s.env)+len(s.args))
	for k := range s.env {
		names = append(names, k)
	}
	for k := range s.args {
		if _, ok := s.env[k]; !ok {
			names = append(names, k)
		}
	}
	sort.Strings(names)
	return names
}

// Expand fills in one word.
func (s *Stage) Expand(word string) (string, error) {
	words, err := s.words(lexer{escape: s.global.escape, spend: s.global.spend}, word)
	if err != nil {
		return "", err
	}
	return words[0], nil
}

func (s *Stage) words(x lexer, word string) ([]string, error) {
	words, unmatched, err := x.expand(word, s.Lookup, s.names)
	for name := range unmatched {
		if s.undefined == nil {
			s.undefined = map[string]struct{}{}
		}
		s.undefined[name] = struct{}{}
	}
	return words, err
}

// ExpandCommand fills in an instruction in place: the words that BuildKit
// expands, all against the values from before the instruction. EXPOSE's are
// split after they are filled in. ARG is left to Declare, whose default may
// not be needed. The bodies of RUN, CMD and ENTRYPOINT are the shell's; those
// of COPY's and ADD's unquoted heredocs keep their quotes.
func (s *Stage) ExpandCommand(cmd instructions.Command) error {
	switch c := cmd.(type) {
	case *instructions.ArgCommand:
		return nil
	case *instructions.ExposeCommand:
		var ports []string
		for _, p := range c.Ports {
			words, err := s.words(lexer{escape: s.global.escape, split: true, spend: s.global.spend}, p)
			if err != nil {
				return err
			}
			ports = append(ports, words...)
		}
		c.Ports = ports
		return nil
	}
	if c, ok := cmd.(instructions.SupportsSingleWordExpansion); ok {
		if err := s.guarded(func() error { return c.Expand(s.Expand) }); err != nil {
			return err
		}
	}
	if c, ok := cmd.(instructions.SupportsSingleWordExpansionRaw); ok {
		// A heredoc's escape character is the backslash whatever the file's is.
		return c.ExpandRaw(func(word string) (string, error) {
			words, err := s.words(lexer{escape: '\\', raw: true, spend: s.global.spend}, word)
			if err != nil {
				return "", err
			}
			return words[0], nil
		})
	}
	return nil
}

func (s *Stage) guarded(f func() error) error { return guard(f) }

// Undefined returns, and forgets, the names that words used although nothing
// defines them, sorted: BuildKit's rule UndefinedVar. An ARG without a value
// defines its name.
func (s *Stage) Undefined() []string {
	if len(s.undefined) == 0 {
		return nil
	}
	names := make([]string, 0, len(s.undefined))
	for k := range s.undefined {
		if _, declared := s.known[k]; !declared {
			names = append(names, k)
		}
	}
	s.undefined = nil
	sort.Strings(names)
	return names
}

// Arg is a declared argument that has a value.
type Arg struct{ Name, Value string }

// UsedArgs returns the arguments that count for the cache key of a RUN at
// this point, in the order of declaration: those declared, with a value, and
// not hidden by ENV. Predefined ones are among them when they are declared.
func (s *Stage) UsedArgs() []Arg {
	var args []Arg
	for _, name := range s.declared {
		v, ok := s.args[name]
		if _, hidden := s.env[name]; ok && !hidden {
			args = append(args, Arg{name, v})
		}
	}
	return args
}

// RunEnv returns what arguments add to the environment of RUN, in the form
// "NAME=value": UsedArgs, then the proxies. The image's own environment is not
// among it.
func (s *Stage) RunEnv() []string {
	var env []string
	for _, a := range s.UsedArgs() {
		env = append(env, a.Name+"="+a.Value)
	}
	return append(env, s.ProxyEnv()...)
}

// ProxyEnv returns the proxies given as build arguments, in both spellings,
// without those that ENV or a declared argument sets. They belong neither in
// the cache key nor in the history.
func (s *Stage) ProxyEnv() []string {
	var env []string
	for _, upper := range proxies {
		lower := strings.ToLower(upper)
		for _, pair := range [][2]string{{upper, lower}, {lower, upper}} {
			value, ok := s.global.buildArgs[pair[0]]
			if !ok {
				value, ok = s.global.buildArgs[pair[1]]
			}
			if _, set := s.Lookup(pair[0]); ok && !set {
				env = append(env, pair[0]+"="+value)
			}
		}
	}
	return env
}
