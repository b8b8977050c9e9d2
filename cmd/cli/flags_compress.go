package cli

import (
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/imagebuildah"
)

// compressFlags say how a build's layers are written elsewhere.
type compressFlags struct {
	format         string
	level          int
	force, disable bool
}

func (c *compressFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&c.format, "compression-format", "", "compress layers that are written elsewhere with gzip or zstd; give the `format`")
	fs.IntVar(&c.level, "compression-level", 0, "compress this `much`; what a level means depends on the format")
	fs.BoolVar(&c.force, "force-compression", false, "compress layers anew that the destination has with another compression")
	fs.BoolVarP(&c.disable, "disable-compression", "D", true, "compress layers only where the destination wants it; false compresses them wherever they are written but in the store")
	_ = cmd.RegisterFlagCompletionFunc("compression-format", fixedValues("gzip", "zstd"))
}

func (c *compressFlags) options(cmd *cobra.Command, o *imagebuildah.Options) (err error) {
	push := pushFlags{compression: c.format, level: c.level, all: true}
	if push.compression == "" && (c.force || !c.disable) {
		push.compression = "gzip"
	}
	o.Push, err = push.options(cmd)
	return err
}
