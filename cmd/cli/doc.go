// Package cli is strata's command line.
//
// A command parses its flags into one options value, calls one library
// function and prints the result: results go to standard output, everything
// else (progress, warnings, errors) to standard error. exit.go alone decides
// the exit status. Malformed values are refused before the store is opened.
//
// Every flag has a twin in the environment (env.go). A flag that buildah,
// podman or docker buildx have and this version has not is refused by name
// from one table (missing.go), never parsed and ignored.
package cli
