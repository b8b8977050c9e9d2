// Package security holds the tests of published weaknesses of image builders
// against the strata binary.
//
// rows.tsv has a line for each row of the catalogue: its number, its ids, and
// the tests elsewhere that show that strata does not have the weakness, or the
// reason why it cannot. The attacks of this package name the rows that they are
// examples of. TestRows has a subtest for each row, named by its ids:
//
//	go test ./tests/security -run /CVE-2024-1753
//
// makes the attacks of that row, and looks whether its other tests exist. Those
// stand beside the code that they are about; what needs the whole program and
// a host that may be harmed is here.
//
// The oracle is a canary: a tree on the host, in nobody's
// context, with a random token in it. After each attack the tree must be what
// it was, and the token must be in no layer, log, cache or temporary file.
//
// Races are tried some times in each run, and often with
// STRATA_SECURITY_TRIES=5000 (make security).
package security
