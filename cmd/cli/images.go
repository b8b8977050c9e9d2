package cli

import (
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/cmd/internal/imagestore"
	"github.com/stratabuild/strata/define"
)

type imagesFlags struct {
	listFlags
	all, digests, history, noHeading bool
	filters                          []string
}

func newImagesCommand(a *app) *cobra.Command {
	var flags imagesFlags
	cmd := &cobra.Command{
		Use:   "images [flags] [name]",
		Short: "List the images of the store",
		Long: `List the images of the store, the newest first: all of them, or those of a name.

Filters: before=IMAGE, since=IMAGE (or after=), dangling=BOOL, id=ID,
intermediate=BOOL, label=KEY[=VALUE], readonly=BOOL, reference=PATTERN and
until=TIME. Templates have the fields .ID .Name (.Repository) .Tag .Names .Digest .Created
.CreatedAt .CreatedAtRaw .Size .SizeBytes .ReadOnly .History, and the function
json. Keys and fields only grow.`,
		Example: `  strata images
  strata images --filter reference='localhost/*' --digests
  strata images --format '{{.Name}}:{{.Tag}} {{.Size}}'
  strata images -q --no-trunc hello`,
		Args:              wantArgs(0, 1, "at most one name"),
		ValidArgsFunction: a.completeImages(1),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&flags.all, "all", "a", false, "list images without a name that others stand on too")
	fs.BoolVar(&flags.digests, "digests", false, "show the digests of manifests")
	fs.StringSliceVarP(&flags.filters, "filter", "f", nil, "list only images that a `condition` (key=value) holds for")
	fs.StringVar(&flags.format, "format", "", "json, table, or a Go `template` for each image")
	fs.BoolVar(&flags.history, "history", false, "show the names that images had before")
	fs.BoolVar(&flags.json, "json", false, "print JSON")
	fs.BoolVar(&flags.noTrunc, "no-trunc", false, "print whole IDs")
	fs.BoolVarP(&flags.noHeading, "noheading", "n", false, "leave the heading out")
	fs.BoolVarP(&flags.quiet, "quiet", "q", false, "print IDs only")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return runImages(a, cmd, flags, args) }
	return cmd
}

func runImages(a *app, cmd *cobra.Command, flags imagesFlags, args []string) error {
	filters, err := imagestore.ParseFilters(flags.filters, imagestore.FilterKeys)
	if err != nil {
		return err
	}
	format, err := flags.listFormat(imageRow{})
	if err != nil {
		return err
	}
	engine, err := a.openStore(cmd.Context())
	if err != nil {
		return err
	}
	images, err := selectImages(engine, filters, flags.all)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		if images, err = namedImages(engine, images, args[0]); err != nil {
			return err
		}
	}
	switch {
	case flags.json || format.json:
		return a.printJSON(imageDocuments(images, flags))
	case flags.quiet:
		return a.printIDs(images, flags.noTrunc)
	}
	rows := imageRows(images, flags)
	if !format.plain {
		return render(a.out, format, rows, imageHeadings)
	}
	return a.imageTable(rows, flags)
}

// selectImages lists what the filters select; unless all are asked for,
// intermediate images are left out.
func selectImages(e *builder.Engine, filters imagestore.Filters, all bool) ([]*imagestore.Image, error) {
	images, err := imagestore.List(e.Store())
	if err != nil {
		return nil, err
	}
	if len(filters["intermediate"]) == 0 && len(filters["dangling"]) == 0 && !all {
		shown := images[:0:0]
		for _, i := range images {
			if !i.Intermediate {
				shown = append(shown, i)
			}
		}
		images = shown
	}
	return imagestore.Select(e.Store(), images, filters, func(name string) (define.ImageID, error) {
		l, err := e.Transport().FindEntry(name)
		return l.ID, err
	})
}

// namedImages keeps the images that the word names, each with the names that
// fit only. A word that fits nothing is looked up, for its error.
func namedImages(e *builder.Engine, images []*imagestore.Image, word string) ([]*imagestore.Image, error) {
	var out []*imagestore.Image
	for _, i := range images {
		var names []string
		for _, n := range i.Names {
			if imagestore.MatchName(n, word) {
				names = append(names, n)
			}
		}
		if len(names) > 0 {
			one := *i
			one.Names = names
			out = append(out, &one)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	local, err := e.Transport().FindEntry(word)
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		if i.ImageID() == local.ID {
			out = append(out, i)
		}
	}
	return out, nil
}

func (a *app) printIDs(images []*imagestore.Image, whole bool) error {
	for _, i := range images {
		a.println(idText(i.ImageID(), whole))
	}
	return nil
}

// idText is an ID as a listing prints it.
func idText(id define.ImageID, whole bool) string {
	if whole {
		return id.WithAlgorithm()
	}
	return id.Short()
}

// imageDocument is an image in JSON: buildah's keys, and after them ours.
type imageDocument struct {
	ID           string   `json:"id"`
	Names        []string `json:"names"`
	Digest       string   `json:"digest"`
	CreatedAt    string   `json:"createdat"`
	Size         string   `json:"size"`
	Created      int64    `json:"created"`
	CreatedAtRaw string   `json:"createdatraw"`
	ReadOnly     bool     `json:"readonly"`
	History      []string `json:"history"`

	FullID    string `json:"fullid"`
	SizeBytes int64  `json:"sizebytes"`
	Dangling  bool   `json:"dangling"`
}

func imageDocuments(images []*imagestore.Image, flags imagesFlags) []imageDocument {
	docs := make([]imageDocument, 0, len(images))
	for _, i := range images {
		id := i.ImageID().Short()
		if flags.noTrunc {
			id = i.ID
		}
		docs = append(docs, imageDocument{
			ID: id, Names: i.Names, Digest: i.Digest.String(), CreatedAt: ago(i.Created), Size: sizeText(i.Size),
			Created: i.Created.Unix(), CreatedAtRaw: i.Created.UTC().Format(time.RFC3339Nano), ReadOnly: i.ReadOnly,
			History: i.NamesHistory, FullID: i.ID, SizeBytes: i.Size, Dangling: i.Dangling(),
		})
	}
	return docs
}

// imageRow is a line of the table, and what templates see.
type imageRow struct {
	ID, Name, Tag, Digest string
	Repository            string // Name, as docker and podman call it
	Names                 []string
	Created               int64
	CreatedAt             string
	CreatedAtRaw          time.Time
	Size                  string
	SizeBytes             int64
	ReadOnly              bool
	History               string
}

var imageHeadings = map[string]string{
	"ID": "IMAGE ID", "Name": "REPOSITORY", "Repository": "REPOSITORY", "Tag": "TAG", "Names": "NAMES", "Digest": "DIGEST", "Created": "CREATED",
	"CreatedAt": "CREATED", "CreatedAtRaw": "CREATED AT", "Size": "SIZE", "SizeBytes": "BYTES", "ReadOnly": "R/O",
	"History": "HISTORY",
}

const none = "<none>"

func imageRows(images []*imagestore.Image, flags imagesFlags) []imageRow {
	var rows []imageRow
	for _, i := range images {
		row := imageRow{
			ID: idText(i.ImageID(), flags.noTrunc), Name: none, Tag: none, Repository: none, Digest: or(i.Digest.String(), none), Names: i.Names,
			Created: i.Created.Unix(), CreatedAt: ago(i.Created), CreatedAtRaw: i.Created, Size: sizeText(i.Size),
			SizeBytes: i.Size, ReadOnly: i.ReadOnly, History: or(strings.Join(i.NamesHistory, ", "), none),
		}
		if len(i.Names) == 0 {
			rows = append(rows, row)
		}
		for _, n := range i.Names {
			repo, tag := imagestore.SplitName(n)
			row.Name, row.Tag = repo, or(tag, none)
			row.Repository = row.Name
			rows = append(rows, row)
		}
	}
	return rows
}

func (a *app) imageTable(rows []imageRow, flags imagesFlags) error {
	columns := []string{"REPOSITORY", "TAG"}
	if flags.digests {
		columns = append(columns, "DIGEST")
	}
	columns = append(columns, "IMAGE ID", "CREATED", "SIZE")
	if flags.history {
		columns = append(columns, "HISTORY")
	}
	var table [][]string
	if !flags.noHeading {
		table = append(table, columns)
	}
	for _, r := range rows {
		line := []string{r.Name, r.Tag}
		if flags.digests {
			line = append(line, r.Digest)
		}
		line = append(line, r.ID, r.CreatedAt, r.Size)
		if flags.history {
			line = append(line, r.History)
		}
		table = append(table, line)
	}
	return writeTable(a.out, table)
}

// ago is a time as people say it; image files may carry none.
func ago(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	d := time.Since(t)
	if d < 0 {
		return "in " + units.HumanDuration(-d)
	}
	return units.HumanDuration(d) + " ago"
}

// sizeText is a size in decimal units with a space, as in "1.23 MB".
func sizeText(n int64) string {
	return units.CustomSize("%.3g %s", float64(n), 1000, []string{"B", "kB", "MB", "GB", "TB", "PB"})
}
