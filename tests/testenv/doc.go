// Package testenv says what the machine that tests run on can do, finds or
// builds the strata binary, and makes temporary stores that leave nothing
// behind.
//
// A condition is asked for by doing the thing, not by looking for a program:
//
//	testenv.Require(t, testenv.Root, testenv.Overlay, testenv.Tool("skopeo"))
//	bin := testenv.Strata(t)
//	st := testenv.NewStore(t)
//	out, err := exec.Command(bin, st.Args("images")...).CombinedOutput()
//
// It imports none of strata's own packages.
package testenv
