package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// attestFlags are docker's about attestations, which are accepted for what is
// the case (no image has any), and buildah's about bills of materials, which
// share the name --sbom.
type attestFlags struct {
	provenance string
	attest     []string
	sbom       sbomFlags
}

func (t *attestFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&t.provenance, "provenance", "", "accepted as false only, without effect: no attestation of this kind is made; a `value`")
	t.sbom.add(cmd, "make a bill of materials with the scanner, commands and merge strategy of this `preset`: "+
		strings.Join(imagebuildah.SBOMPresets, ", ")+"; false makes none, as does saying nothing")
	fs.StringArrayVar(&t.attest, "attest", nil, "accepted as `type=KIND,disabled=true` only, without effect: no attestation is made")
	// Alone it means true, which is refused by name.
	fs.Lookup("provenance").NoOptDefVal = "true"
}

func (t *attestFlags) options(o *imagebuildah.Options) (err error) {
	if err := t.check(); err != nil {
		return err
	}
	preset := t.sbom.preset
	if disabled(preset) {
		preset = ""
	}
	o.SBOMs, err = t.sbom.options(preset)
	for i := range o.SBOMs {
		o.SBOMs[i].Run, o.SBOMs[i].Pull = o.Run, o.Pull
		o.SBOMs[i].Run.Volumes, o.SBOMs[i].Run.Devices, o.SBOMs[i].Run.CDI = nil, nil, nil // those are the steps'
	}
	return err
}

func (t *attestFlags) check() error {
	refused := func(text, instead string) error {
		return fmt.Errorf("%s: attestations are not in this version of strata; %s is what is the case, and a bill of materials is made with --sbom %s and --sbom-output or --sbom-image-output: %w",
			text, instead, imagebuildah.SBOMPresets[0], define.ErrUnsupported)
	}
	if s := t.provenance; s != "" && !disabled(s) {
		return refused("--provenance="+s, "--provenance=false")
	}
	if s := t.sbom.preset; isTrue(s) || strings.Contains(s, "=") && !disabled(s) {
		return refused("--sbom="+s, "--sbom=false")
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
			return refused("--attest "+value, "disabled=true")
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
