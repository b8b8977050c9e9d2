// Command cmd makes the base image of the tests and of the demo:
//
//	go run ./tests/baseimage/cmd [-ref NAME] [-archive] PATH
//
// PATH becomes an OCI image layout ("oci:PATH:busybox"), or with -archive a
// file ("oci-archive:PATH"). It prints the digest of the manifest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/stratabuild/strata/tests/baseimage"
)

func main() {
	ref := flag.String("ref", baseimage.Ref, "the image's name in the layout")
	archive := flag.Bool("archive", false, "write one file in place of a directory")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run ./tests/baseimage/cmd [-ref NAME] [-archive] PATH")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, flag.Arg(0), *ref, *archive); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path, ref string, archive bool) (err error) {
	scratch, err := os.MkdirTemp("", "baseimage-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	busybox, err := baseimage.Busybox(ctx, scratch)
	if err != nil {
		return err
	}
	dir := path
	if archive {
		dir = filepath.Join(scratch, "layout")
	}
	manifest, err := baseimage.Write(dir, ref, busybox)
	if err != nil {
		return err
	}
	if archive {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := errors.Join(baseimage.Archive(f, dir), f.Close()); err != nil {
			return err
		}
	}
	fmt.Println(manifest)
	return nil
}
