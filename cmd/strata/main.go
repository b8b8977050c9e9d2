// Command strata builds OCI images without a daemon.
package main

import (
	"context"
	"os"

	"github.com/stratabuild/strata/cmd/cli"
)

func main() {
	if cli.Child() {
		return
	}
	ctx, stop := cli.WithSignals(context.Background())
	code := cli.Run(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
