// Package expand fills variables into the words of a Containerfile as
// BuildKit does, and knows which arguments and environment a stage has.
//
// A Global holds what FROM can use: the arguments declared before the first
// FROM and the platform arguments. Each stage that a build executes gets a
// Stage, which sees the environment of its base image, the ENV of the stage,
// and the arguments that the stage has declared so far.
//
//	g := expand.NewGlobal(buildArgs, target, build, "release")
//	g.SetEscape(file.Escape)
//	for _, arg := range file.Args { err := g.DeclareAll(arg) }
//	s := g.Stage(baseImage.Config.Env)
//	err := s.ExpandCommand(instruction.Fresh())
//
// Rules: a build argument beats a default. ENV, also the base image's, beats
// ARG of the same name (Dockerfile reference, "Using ARG variables"). All
// words of one instruction see the values from before it. A global argument
// reaches a stage only when the stage declares its name. The proxy arguments
// need no declaration and reach RUN alone; only when they are declared do
// they count for cache keys.
//
// The package does no I/O. A word may grow to MaxResult; what would grow
// further, or nests deeper than only an attack does, is an error.
package expand
