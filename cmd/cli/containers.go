package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/cmd/internal/imagestore"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

type containersFlags struct {
	listFlags
	all, noHeading bool
	filters        []string
}

func newContainersCommand(a *app) *cobra.Command {
	var flags containersFlags
	cmd := &cobra.Command{
		Use:     "containers [flags]",
		Aliases: []string{"list", "ls", "ps"},
		Short:   "List the working containers",
		Long: `List the working containers, the oldest first: those that strata made, which the
column BUILDER marks, or with --all those of other programs too.

Filters: id=ID (its beginning does), name=NAME (a part of it does) and
ancestor=IMAGE (the image that the container is made from, or one below it).
Templates have the fields .ContainerID .Builder .ImageID .ImageName
.ContainerName .Names .Created .CreatedAt .MountPoint, and the function json. Keys
and fields only grow.`,
		Example: `  strata containers
  strata containers --filter ancestor=alpine -q
  strata containers --format '{{.ContainerID}} {{.ContainerName}}'`,
		Args:              wantArgs(0, 0, ""),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runContainers(a, cmd, flags) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&flags.all, "all", "a", false, "list containers of other programs too")
	fs.StringSliceVarP(&flags.filters, "filter", "f", nil, "list only containers that a `condition` (key=value) holds for")
	fs.StringVar(&flags.format, "format", "", "json, table, or a Go `template` for each container")
	fs.BoolVar(&flags.json, "json", false, "print JSON")
	fs.BoolVarP(&flags.noHeading, "noheading", "n", false, "leave the heading out")
	fs.BoolVar(&flags.noTrunc, "notruncate", false, "print whole IDs and names")
	fs.BoolVarP(&flags.quiet, "quiet", "q", false, "print IDs only")
	return cmd
}

func runContainers(a *app, cmd *cobra.Command, flags containersFlags) error {
	filters, err := imagestore.ParseFilters(flags.filters, []string{"id", "name", "ancestor"})
	if err != nil {
		return err
	}
	format, err := flags.listFormat(containerRow{})
	if err != nil {
		return err
	}
	engine, err := a.openStore(cmd.Context())
	if err != nil {
		return err
	}
	list, err := selectContainers(cmd.Context(), engine, filters, flags.all)
	if err != nil {
		return err
	}
	rows := containerRows(engine, list)
	switch {
	case flags.json || format.json:
		return a.printJSON(containerDocuments(rows, list))
	case flags.quiet:
		for _, r := range rows {
			a.println(r.ContainerID)
		}
		return nil
	case !format.plain:
		return render(a.out, format, rows, containerHeadings)
	}
	return a.containerTable(rows, flags)
}

func selectContainers(ctx context.Context, e *builder.Engine, filters imagestore.Filters, all bool) ([]builder.ContainerInfo, error) {
	list, err := e.Containers(ctx)
	if err != nil {
		return nil, err
	}
	ancestors, err := findAncestors(e, filters["ancestor"])
	if err != nil {
		return nil, err
	}
	var kept []builder.ContainerInfo
	for _, c := range list {
		if !all && !c.Ours || !matchesContainer(c, filters) {
			continue
		}
		if len(ancestors) > 0 {
			if ok, err := descends(e, c, ancestors); err != nil {
				return nil, err
			} else if !ok {
				continue
			}
		}
		kept = append(kept, c)
	}
	return kept, nil
}

// matchesContainer says what the filters id and name say.
func matchesContainer(c builder.ContainerInfo, filters imagestore.Filters) bool {
	any := func(values []string, is func(string) bool) bool {
		for _, v := range values {
			if is(v) {
				return true
			}
		}
		return len(values) == 0
	}
	return any(filters["id"], func(v string) bool { return strings.HasPrefix(c.ID, v) }) &&
		any(filters["name"], func(v string) bool {
			for _, n := range c.Names {
				if strings.Contains(n, v) {
					return true
				}
			}
			return false
		})
}

// ancestor is an image of the filter of that name.
type ancestor struct {
	id    define.ImageID
	layer string
}

func findAncestors(e *builder.Engine, names []string) ([]ancestor, error) {
	var found []ancestor
	for _, name := range names {
		local, err := e.Transport().FindLocal(name, define.Platform{})
		if err != nil {
			return nil, fmt.Errorf("--filter ancestor: %w", err)
		}
		img, err := e.Store().Raw().Image(string(local.ID))
		if err != nil {
			return nil, fmt.Errorf("--filter ancestor: image %s: %w", name, err)
		}
		found = append(found, ancestor{local.ID, img.TopLayer})
	}
	return found, nil
}

// descends reports whether a container was made from one of the images, or
// lies on its layers.
func descends(e *builder.Engine, c builder.ContainerInfo, from []ancestor) (bool, error) {
	for _, a := range from {
		if a.id == c.ImageID {
			return true, nil
		}
	}
	for id := c.LayerID; id != ""; {
		l, err := e.Store().Raw().Layer(id)
		if errors.Is(err, storage.ErrLayerUnknown) {
			return false, nil // removed meanwhile
		}
		if err != nil {
			return false, fmt.Errorf("container %s: %w", c.Name, err)
		}
		for _, a := range from {
			if a.layer == id {
				return true, nil
			}
		}
		id = l.Parent
	}
	return false, nil
}

// containerRow is a line of the table, and what templates see.
type containerRow struct {
	ContainerID, Builder, ImageID, ImageName, ContainerName string
	Names                                                   []string
	Created                                                 int64
	CreatedAt                                               string
	MountPoint                                              string
}

var containerHeadings = map[string]string{
	"ContainerID": "CONTAINER ID", "Builder": "BUILDER", "ImageID": "IMAGE ID", "ImageName": "IMAGE NAME",
	"ContainerName": "CONTAINER NAME", "Names": "NAMES", "Created": "CREATED", "CreatedAt": "CREATED", "MountPoint": "MOUNT POINT",
}

func containerRows(e *builder.Engine, list []builder.ContainerInfo) []containerRow {
	rows := make([]containerRow, 0, len(list))
	for _, c := range list {
		row := containerRow{
			ContainerID: c.ID, ImageID: string(c.ImageID), ImageName: c.ImageName, ContainerName: c.Name, Names: c.Names,
			Created: c.Created.Unix(), CreatedAt: ago(c.Created), MountPoint: e.MountPoint(c),
		}
		if c.Ours {
			row.Builder = "*"
		}
		if row.ImageID == "" {
			row.ImageName = "scratch"
		}
		rows = append(rows, row)
	}
	return rows
}

// containerDocument is a container in JSON: buildah's keys, and after them
// ours.
type containerDocument struct {
	ID            string `json:"id"`
	Builder       bool   `json:"builder"`
	ImageID       string `json:"imageid"`
	ImageName     string `json:"imagename"`
	ContainerName string `json:"containername"`

	Names      []string `json:"names"`
	Created    int64    `json:"created"`
	CreatedRaw string   `json:"createdatraw"`
	MountPoint string   `json:"mountpoint,omitempty"`
}

func containerDocuments(rows []containerRow, list []builder.ContainerInfo) []containerDocument {
	docs := make([]containerDocument, 0, len(rows))
	for i, r := range rows {
		docs = append(docs, containerDocument{
			ID: r.ContainerID, Builder: list[i].Ours, ImageID: r.ImageID, ImageName: r.ImageName, ContainerName: r.ContainerName,
			Names: r.Names, Created: r.Created, CreatedRaw: list[i].Created.UTC().Format(time.RFC3339Nano), MountPoint: r.MountPoint,
		})
	}
	return docs
}

func (a *app) containerTable(rows []containerRow, flags containersFlags) error {
	var table [][]string
	if !flags.noHeading {
		table = append(table, []string{"CONTAINER ID", "BUILDER", "IMAGE ID", "IMAGE NAME", "CONTAINER NAME"})
	}
	for _, r := range rows {
		if !flags.noTrunc {
			r.ContainerID, r.ImageID, r.ImageName = cut(r.ContainerID, 12, ""), cut(r.ImageID, 12, ""), cut(r.ImageName, 32, "...")
		}
		table = append(table, []string{r.ContainerID, "   " + r.Builder, r.ImageID, r.ImageName, r.ContainerName})
	}
	return writeTable(a.out, table)
}

// cut shortens s to n characters, the last of which are then end.
func cut(s string, n int, end string) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-len(end)]) + end
	}
	return s
}
