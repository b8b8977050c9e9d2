package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// sbomFlags ask for a bill of materials that a scanner's image makes.
type sbomFlags struct {
	preset                                           string
	scanner, merge                                   string
	commands                                         []string
	output, purlOutput, imageOutput, imagePURLOutput string
}

// add adds the flags; that of the preset has another meaning too in build,
// which says so itself.
func (f *sbomFlags) add(cmd *cobra.Command, usage string) {
	fs := cmd.Flags()
	fs.StringVar(&f.preset, "sbom", "", usage)
	fs.StringVar(&f.scanner, "sbom-scanner-image", "", "scan with this `image`")
	fs.StringArrayVar(&f.commands, "sbom-scanner-command", nil, "scan with this `command` of the scanner's image, in which {ROOTFS}, {CONTEXT} and {OUTPUT} are replaced; may be repeated")
	fs.StringVar(&f.merge, "sbom-merge-strategy", "", "how several outputs become one: "+strings.Join(imagebuildah.SBOMMergeStrategies, ", ")+"; give the `method`")
	fs.StringVar(&f.output, "sbom-output", "", "write the bill of materials to this `file`")
	fs.StringVar(&f.purlOutput, "sbom-purl-output", "", "write the package URLs that it names to this `file`, as JSON")
	fs.StringVar(&f.imageOutput, "sbom-image-output", "", "write it into the image, under this `path`")
	fs.StringVar(&f.imagePURLOutput, "sbom-image-purl-output", "", "write its package URLs into the image, under this `path`")
	_ = cmd.RegisterFlagCompletionFunc("sbom", fixedValues(imagebuildah.SBOMPresets...))
	_ = cmd.RegisterFlagCompletionFunc("sbom-merge-strategy", fixedValues(imagebuildah.SBOMMergeStrategies...))
}

// given reports whether any of the flags but the preset is.
func (f *sbomFlags) given() bool {
	return f.scanner+f.merge+f.output+f.purlOutput+f.imageOutput+f.imagePURLOutput != "" || len(f.commands) > 0
}

// options returns what is to be scanned; nil is nothing.
func (f *sbomFlags) options(preset string) ([]imagebuildah.SBOM, error) {
	if preset == "" && !f.given() {
		return nil, nil
	}
	var s imagebuildah.SBOM
	if preset != "" {
		var ok bool
		if s, ok = imagebuildah.SBOMPreset(preset); !ok {
			return nil, fmt.Errorf("--sbom %q: want one of %s%s: %w", preset, strings.Join(imagebuildah.SBOMPresets, ", "),
				didYouMean(preset, imagebuildah.SBOMPresets, ""), define.ErrInvalid)
		}
	}
	if f.scanner != "" {
		s.Image = f.scanner
	}
	if len(f.commands) > 0 {
		s.Commands = nil
	}
	for _, line := range f.commands {
		words, err := splitWords(line)
		if err != nil {
			return nil, fmt.Errorf("--sbom-scanner-command %q: %w", line, err)
		}
		s.Commands = append(s.Commands, words)
	}
	if f.merge != "" {
		s.Merge = f.merge
	}
	if s.Merge != "" && !slices.Contains(imagebuildah.SBOMMergeStrategies, s.Merge) {
		return nil, fmt.Errorf("--sbom-merge-strategy %q: want one of %s: %w", s.Merge, strings.Join(imagebuildah.SBOMMergeStrategies, ", "), define.ErrInvalid)
	}
	s.Output, s.PURLOutput, s.ImageOutput, s.ImagePURLOutput = f.output, f.purlOutput, f.imageOutput, f.imagePURLOutput
	for _, r := range []resultFile{{"sbom-output", s.Output}, {"sbom-purl-output", s.PURLOutput}} {
		if err := r.check(); err != nil {
			return nil, err
		}
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	return []imagebuildah.SBOM{s}, nil
}
