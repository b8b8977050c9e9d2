// Package security holds the tests of published weaknesses of image builders
// against the strata binary.
//
// rows.tsv has a line for each row of the catalogue: its number, the first of
// its ids, and the tests that show that strata does not have the weakness, or
// the reason why it cannot. TestRows checks that those tests exist. A test
// named here stands beside the code that it is about; those that need the
// whole program and a host that may be harmed are in this package.
//
// The oracle of the latter is a canary: a tree on the host, in nobody's
// context, with a random token in it. After each attack the tree must be what
// it was, and the token must be in no layer, log, cache or temporary file.
//
// Races are tried some times in each run, and often with
// STRATA_SECURITY_TRIES=5000 (make security).
package security
