package builder_test

import (
	"context"
	"fmt"
	"log"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/copier"
)

// A working container by hand: from, copy, run, configure, commit.
func Example() {
	ctx := context.Background()
	e, err := builder.Open(ctx, exampleOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	c, err := e.From(ctx, builder.FromOptions{Image: exampleBase()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	file := builder.BytesFile("greeting", []byte("hello\n"), 0o644)
	if err := c.Add(ctx, builder.Add{Dest: "/srv/", Files: []builder.AddFile{file}}); err != nil {
		log.Fatal(err)
	}
	if err := c.Run(ctx, builder.Run{Args: []string{"sh", "-c", "tr a-z A-Z < /srv/greeting > /srv/loud"}}); err != nil {
		log.Fatal(err)
	}
	c.Image.Config.Cmd = []string{"cat", "/srv/loud"}
	img, err := c.Commit(ctx, builder.CommitOptions{Names: []string{"localhost/hello:latest"}})
	if err != nil {
		log.Fatal(err)
	}
	stored, err := image.Load(e.Store(), img.ID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stored.Names, stored.Config.Cmd)
	err = c.View(ctx, func(root *copier.Root) error {
		text, err := root.ReadFile("/srv/loud", 100)
		fmt.Print(string(text))
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// [localhost/hello:latest] [cat /srv/loud]
	// HELLO
}
