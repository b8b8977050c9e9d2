// Package check answers what can be asked about a Containerfile without
// building it: which of BuildKit's rules it violates (Lint), what a target
// takes (Find: arguments, secrets, SSH keys), and which targets there are
// (List). It needs the context and the files in it; no store, no registry, no
// namespaces.
//
//	report, err := check.Lint(ctx, check.Options{Context: buildcontext.Options{Location: "."}})
//	report.WriteText(os.Stdout)
//
// The documents' JSON has the fields of BuildKit's subrequests frontend.lint,
// frontend.outline and frontend.targets (version 1.0.0), which docker buildx
// build --call prints.
//
// Base images are not looked at. So Lint reports a variable that nothing in
// the file defines (UndefinedVar) only where no base image can define it, or
// where the file shows what was meant: a global argument that the stage does
// not declare, a variable of another stage, or a near spelling. A build knows
// the base image and reports all. InvalidBaseImagePlatform is a build's alone.
package check
