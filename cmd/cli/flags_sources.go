package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
	"github.com/stratabuild/strata/imagebuildah/sourcepolicy"
)

// sourceFlags restrict where a build takes things from.
type sourceFlags struct{ policyFile string }

// policyVariable names the same file for docker buildx.
const policyVariable = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"

func (f *sourceFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.policyFile, "source-policy-file", "", "allow, deny or replace images, downloads and git repositories as the rules in this `file` say: BuildKit's source policy, in JSON (default: the file that $"+policyVariable+" names)")
	_ = cmd.MarkFlagFilename("source-policy-file", "json")
}

func (f *sourceFlags) options(a *app, o *imagebuildah.Options) error {
	name, title := f.policyFile, "--source-policy-file"
	if name == "" {
		name, title = a.getenv(policyVariable), policyVariable
	}
	if name == "" {
		return nil
	}
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, sourcepolicy.MaxFile+1))
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	if o.SourcePolicy, err = sourcepolicy.Parse(data); err != nil {
		return fmt.Errorf("%s %s: %w", title, name, err)
	}
	return nil
}

// compatFlags are buildah's about what images of stages have, and what RUN
// leaves in volumes.
type compatFlags struct {
	volumes     bool
	layerLabels []string
}

func (f *compatFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&f.volumes, "compat-volumes", false, "throw away what RUN steps change below the volumes of the image, as docker's builder once did")
	fs.StringArrayVar(&f.layerLabels, "layer-label", nil, "add a label, as `key=value`, to the images of stages that --save-stages keeps; images of single steps, which buildah would label, are not made")
}

func (f *compatFlags) options(o *imagebuildah.Options) error {
	for _, kv := range f.layerLabels {
		if kv == "" || kv[0] == '=' {
			return fmt.Errorf("--layer-label %q: want key=value: %w", kv, define.ErrInvalid)
		}
	}
	o.CompatVolumes, o.StageImageLabels = f.volumes, f.layerLabels
	return nil
}
