// Package imagebuildah builds images from Containerfiles.
//
// Build reads the context and the Containerfile, plans the stages that the
// target needs, and executes them, each stage in its own goroutine as soon as
// what it waits for is there. A step whose key is in the cache is not
// executed; the first one that is not starts a chain of executed steps, whose
// layers are committed in the background while the next step runs. The image
// is recorded last.
//
//	e, err := builder.Open(ctx, builder.Options{})
//	defer e.Close()
//	r, err := imagebuildah.Build(ctx, e, imagebuildah.Options{
//		Context: buildcontext.Options{Location: "."},
//		Tags:    []string{"hello"},
//	})
//
// A failing step is an *InstructionError. Whatever happens, images and names
// that existed stay as they were until the new image is complete, and nothing
// but cached layers is left of a build that failed.
package imagebuildah
