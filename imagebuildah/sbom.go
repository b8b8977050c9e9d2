package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/runmount"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// SBOM says how a software bill of materials is made of an image, by running
// commands of a scanner's image, and where it goes.
type SBOM struct {
	// Image is the scanner's image, fetched as Pull says.
	Image string
	Pull  define.PullPolicy
	// Commands are run one after the other, without a shell and as root of
	// the scanner's image. In each argument {ROOTFS} becomes the directory of
	// the image's files, {CONTEXT} that of a context and {OUTPUT} the file
	// that the command is to write. A command with {CONTEXT} is run for each
	// context.
	Commands [][]string
	// Merge is one of SBOMMergeStrategies; "" when there is one output only.
	Merge string
	// Output and PURLOutput are files of the host, ImageOutput and
	// ImagePURLOutput files of the image; at least one is set. The PURL files
	// list the package URLs of the bill.
	Output, PURLOutput, ImageOutput, ImagePURLOutput string
	// Run is how commands are confined.
	Run RunOptions
}

// sbomPresets are buildah's: scanner, the formats' words, and the commands.
var sbomPresets = map[string]struct{ image, rootfs, context, merge string }{
	"syft-cyclonedx":  {"ghcr.io/anchore/syft", "/syft scan -q dir:{ROOTFS} --output cyclonedx-json={OUTPUT}", "/syft scan -q dir:{CONTEXT} --output cyclonedx-json={OUTPUT}", MergeCycloneDX},
	"syft-spdx":       {"ghcr.io/anchore/syft", "/syft scan -q dir:{ROOTFS} --output spdx-json={OUTPUT}", "/syft scan -q dir:{CONTEXT} --output spdx-json={OUTPUT}", MergeSPDX},
	"trivy-cyclonedx": {"ghcr.io/aquasecurity/trivy", "trivy filesystem -q {ROOTFS} --format cyclonedx --output {OUTPUT}", "trivy filesystem -q {CONTEXT} --format cyclonedx --output {OUTPUT}", MergeCycloneDX},
	"trivy-spdx":      {"ghcr.io/aquasecurity/trivy", "trivy filesystem -q {ROOTFS} --format spdx-json --output {OUTPUT}", "trivy filesystem -q {CONTEXT} --format spdx-json --output {OUTPUT}", MergeSPDX},
}

// SBOMPresets are the names that SBOMPreset knows.
var SBOMPresets = []string{"syft", "syft-cyclonedx", "syft-spdx", "trivy", "trivy-cyclonedx", "trivy-spdx"}

// SBOMPreset returns scanner, commands and merge strategy of a preset.
func SBOMPreset(name string) (s SBOM, ok bool) {
	if name == "syft" || name == "trivy" {
		name += "-cyclonedx"
	}
	p, ok := sbomPresets[name]
	if !ok {
		return s, false
	}
	return SBOM{Image: p.image, Commands: [][]string{strings.Fields(p.rootfs), strings.Fields(p.context)}, Merge: p.merge}, true
}

// Check refuses what cannot be done, before anything is.
func (s *SBOM) Check() error {
	bad := func(text string) error { return fmt.Errorf("sbom: %s: %w", text, define.ErrInvalid) }
	if s.Image == "" {
		return bad("no scanner: want a preset (" + strings.Join(SBOMPresets, ", ") + ") or a scanner's image")
	}
	if len(s.Commands) == 0 {
		return bad("no scanner command: want at least one, such as \"scan {ROOTFS} -o {OUTPUT}\"")
	}
	for _, c := range s.Commands {
		if len(c) == 0 {
			return bad("a scanner command is empty")
		}
	}
	if s.Output == "" && s.PURLOutput == "" && s.ImageOutput == "" && s.ImagePURLOutput == "" {
		return bad("nothing says where it goes: want an output on the host or in the image")
	}
	for _, p := range []string{s.ImageOutput, s.ImagePURLOutput} {
		if strings.HasSuffix(p, "/") {
			return bad("output " + p + " in the image: want a file's path")
		}
	}
	if _, ok := sbomMerges[s.Merge]; !ok && (s.Merge != "" || len(s.Commands) > 1) {
		return bad(fmt.Sprintf("merge strategy %q: want one of %s", s.Merge, strings.Join(SBOMMergeStrategies, ", ")))
	}
	return nil
}

const (
	sbomDir    = "/.strata-sbom" // in the scanner's root
	sbomRootFS = sbomDir + "/rootfs"
	// maxSBOM bounds one output of a scanner, in bytes.
	maxSBOM = 256 << 20
)

// scanRun is one run of a command: context is -1 for those that need none.
type scanRun struct {
	args    []string
	context int
}

func (s *SBOM) runs(contexts int) []scanRun {
	var runs []scanRun
	for _, c := range s.Commands {
		if !strings.Contains(strings.Join(c, " "), "{CONTEXT}") {
			runs = append(runs, scanRun{c, -1})
			continue
		}
		for i := range contexts {
			runs = append(runs, scanRun{c, i})
		}
	}
	return runs
}

// Scan runs the commands over the container's root and the contexts, writes
// the results, and leaves those that belong into the image as open changes of
// the container.
func (s *SBOM) Scan(ctx context.Context, c *builder.Container, contexts []*copier.Root) error {
	if err := s.scan(ctx, c, contexts); err != nil {
		return fmt.Errorf("sbom: %w", err)
	}
	return nil
}

func (s *SBOM) scan(ctx context.Context, c *builder.Container, contexts []*copier.Root) (err error) {
	runs := s.runs(len(contexts))
	if len(runs) == 0 {
		return fmt.Errorf("every scanner command wants a {CONTEXT}, and there is none: %w", define.ErrInvalid)
	}
	if len(runs) > 1 && s.Merge == "" {
		return fmt.Errorf("%d outputs of scanner commands and no merge strategy: want one of %s: %w", len(runs), strings.Join(SBOMMergeStrategies, ", "), define.ErrInvalid)
	}
	scanner, err := c.Engine().From(ctx, builder.FromOptions{Image: s.Image, Pull: s.Pull})
	if err != nil {
		return fmt.Errorf("scanner: %w", err)
	}
	defer func() { err = errors.Join(err, scanner.Close()) }()
	if err := scanner.Mkdir(ctx, sbomDir, copier.Owner{}); err != nil {
		return err
	}
	var documents [][]byte
	for n, r := range runs {
		out := fmt.Sprintf("%s/output-%d.json", sbomDir, n)
		if err := s.command(ctx, scanner, c, contexts, r, out); err != nil {
			return err
		}
		err := scanner.View(ctx, func(root *copier.Root) (err error) {
			// Resolved within the scanner's root, whatever the scanner left there.
			data, err := root.ReadFile(out, maxSBOM)
			documents = append(documents, data)
			return err
		})
		if err != nil {
			return fmt.Errorf("what %s has written: %w", r.args[0], err)
		}
	}
	return s.deliver(ctx, c, documents)
}

// command runs one command with the trees that it names.
func (s *SBOM) command(ctx context.Context, scanner, c *builder.Container, contexts []*copier.Root, r scanRun, out string) (err error) {
	names := []string{"{ROOTFS}", sbomRootFS, "{OUTPUT}", out}
	run := builder.Run{User: "0:0", Dir: "/", Confinement: s.Run, Step: &define.Step{Stage: "sbom", N: 1, Of: 1, Text: "scan " + strings.Join(r.args, " ")}}
	if r.context >= 0 {
		dir := fmt.Sprintf("%s/context-%d", sbomDir, r.context)
		names = append(names, "{CONTEXT}", dir)
		tree, err := runmount.Tree(nil, contexts[r.context].File())
		if err != nil {
			return err
		}
		defer tree.Close()
		run.Mounts = append(run.Mounts, isolation.Volume{Tree: tree, Target: dir, ReadOnly: true})
	}
	replace := strings.NewReplacer(names...)
	for _, a := range r.args {
		run.Args = append(run.Args, replace.Replace(a))
	}
	err = c.View(ctx, func(root *copier.Root) error {
		tree, err := runmount.Tree(root.File(), root.File())
		if err != nil {
			return err
		}
		defer tree.Close()
		run.Mounts = append(run.Mounts, isolation.Volume{Tree: tree, Target: sbomRootFS, ReadOnly: true})
		return scanner.Run(ctx, run)
	})
	if err != nil {
		return fmt.Errorf("scanner command %q: %w", strings.Join(run.Args, " "), err)
	}
	return nil
}

// deliver merges the documents and writes the results.
func (s *SBOM) deliver(ctx context.Context, c *builder.Container, documents [][]byte) error {
	whole := documents[0]
	if len(documents) > 1 {
		var err error
		if whole, err = sbomMerges[s.Merge](documents); err != nil {
			return err
		}
	}
	var urls []byte
	if s.PURLOutput != "" || s.ImagePURLOutput != "" {
		var err error
		if urls, err = purlFile(documents); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{s.Output, whole}, {s.PURLOutput, urls}} {
		if f.name == "" {
			continue
		}
		if err := toFile(f.name, func(w io.Writer) error { _, err := w.Write(f.data); return err }); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{s.ImageOutput, whole}, {s.ImagePURLOutput, urls}} {
		if f.name == "" {
			continue
		}
		dest := path.Join("/", f.name)
		err := c.Add(ctx, builder.Add{Dest: dest, Files: []builder.AddFile{builder.BytesFile(path.Base(dest), f.data, 0o644)}})
		if err != nil {
			return fmt.Errorf("output %s in the image: %w", f.name, err)
		}
	}
	return nil
}

// scan makes the bills of materials that the options ask for, before the
// image is recorded.
func (b *build) scan(ctx context.Context, s *stage) error {
	if len(b.opts.SBOMs) == 0 {
		return nil
	}
	var roots []*copier.Root
	if r := b.context.Root(); r != nil {
		roots = append(roots, r)
	}
	for _, c := range b.contexts.sorted() {
		if _, image, err := c.image(); err != nil || image {
			continue // what it is used for is part of the image
		}
		files, err := c.open(ctx)
		if err != nil {
			return err
		}
		roots = append(roots, files.Root())
	}
	for i := range b.opts.SBOMs {
		if err := b.opts.SBOMs[i].Scan(ctx, s.c, roots); err != nil {
			return err
		}
	}
	if !s.c.Dirty() {
		return nil
	}
	if _, err := s.c.Seal(ctx, b.freezeOptions()); err != nil {
		return err
	}
	now := time.Now().UTC()
	s.addHistory("SBOM", &now, false)
	return nil
}

// checkSBOMs refuses what cannot be done, and host files that the images of
// several platforms would share.
func checkSBOMs(o *Options) error {
	for i := range o.SBOMs {
		s := &o.SBOMs[i]
		if err := s.Check(); err != nil {
			return err
		}
		if (len(o.Platforms) > 1 || o.AllPlatforms) && (s.Output != "" || s.PURLOutput != "") {
			return fmt.Errorf("sbom: an output on the host holds the bill of one image only: with several platforms want outputs in the images: %w", define.ErrInvalid)
		}
		for _, name := range []string{s.Output, s.PURLOutput} {
			if info, err := os.Stat(name); name != "" && err == nil && info.IsDir() {
				return fmt.Errorf("sbom: output %s is a directory: %w", name, define.ErrInvalid)
			}
		}
	}
	return nil
}
