// Command places runs the end-to-end scripts in every kind of place that
// strata promises to work in, and writes a table of which passed where:
//
//	go run ./tests/places -write docs/places.md      # all, and the table (make places)
//	go run ./tests/places -run cache one-uid         # one folder in one place
//	go run ./tests/places -again                     # what has no result yet, or failed
//	go run ./tests/places -table -write docs/places.md
//
// What each script came to is kept, a file for each place, below -results
// (bin/places): a run can be done in parts, and the table is made of all parts.
// It names the versions of strata that they were done with.
//
// It needs root, since it makes the places: users with and without ranges of
// ids, a container with docker's default confinement (runc), a user namespace
// with one id, and a PATH with nothing but strata and busybox. Files of /etc
// are replaced in mount namespaces of its own: nothing of the host changes,
// and nothing is left.
//
// The file unfit.tsv names the scripts that cannot pass in a place and why; a
// script that fails and is not in it makes the program exit with 1, and so
// does one that is in it and passes.
package main
