package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
)

// attestFlags are accepted for what is the case: no image has attestations.
type attestFlags struct {
	provenance, sbom string
	attest           []string
}

func (t *attestFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	const usage = "accepted as false only, without effect: no attestation of this kind is made; a `value`"
	fs.StringVar(&t.provenance, "provenance", "", usage)
	fs.StringVar(&t.sbom, "sbom", "", usage)
	fs.StringArrayVar(&t.attest, "attest", nil, "accepted as `type=KIND,disabled=true` only, without effect: no attestation is made")
	// Alone they mean true, which is refused by name.
	fs.Lookup("provenance").NoOptDefVal = "true"
	fs.Lookup("sbom").NoOptDefVal = "true"
}

func (t *attestFlags) check() error {
	for flag, value := range map[string]string{"provenance": t.provenance, "sbom": t.sbom} {
		if value == "" || disabled(value) {
			continue
		}
		return fmt.Errorf("--%s=%s: attestations are not in this version of strata; --%s=false is what is the case: %w", flag, value, flag, define.ErrUnsupported)
	}
	for _, value := range t.attest {
		off := false
		for field := range strings.SplitSeq(value, ",") {
			key, v, ok := strings.Cut(field, "=")
			if !ok || key == "" {
				return fmt.Errorf("--attest %q: want type=KIND,disabled=true: %w", value, define.ErrInvalid)
			}
			off = off || key == "disabled" && isTrue(v)
		}
		if !off {
			return fmt.Errorf("--attest %s: attestations are not in this version of strata: %w", value, define.ErrUnsupported)
		}
	}
	return nil
}

// disabled reads the values of --provenance and --sbom that ask for nothing.
func disabled(value string) bool {
	if v, ok := strings.CutPrefix(value, "disabled="); ok {
		return isTrue(v)
	}
	on, err := strconv.ParseBool(value)
	return err == nil && !on
}

func isTrue(s string) bool {
	on, err := strconv.ParseBool(s)
	return err == nil && on
}
