package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/cmd/internal/imagestore"
	"github.com/stratabuild/strata/define"
)

type historyFlags struct {
	human, noTrunc, quiet bool
	format                string
}

func newHistoryCommand(a *app) *cobra.Command {
	var flags historyFlags
	cmd := &cobra.Command{
		Use:   "history [flags] image",
		Short: "Show how an image was made",
		Long: `Show the history of an image of the store, the latest step first: what made each
layer and how large it is. Templates have the fields .ID .Created .CreatedAt
.CreatedBy .Size .SizeBytes .Comment and .Layer, and the function json.`,
		Example: `  strata history hello
  strata history --no-trunc --format '{{.Size}} {{.CreatedBy}}' hello`,
		Args:              wantArgs(1, 1, "one image"),
		ValidArgsFunction: a.completeImages(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := parseListFormat(flags.format, historyRow{})
			if err != nil {
				return err
			}
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			rows, err := historyRows(engine, args[0], flags)
			if err != nil {
				return err
			}
			return a.printHistory(rows, format, flags.quiet)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&flags.format, "format", "", "json, table, or a Go `template` for each step")
	fs.BoolVarP(&flags.human, "human", "H", true, "print sizes and times as people read them")
	fs.BoolVar(&flags.noTrunc, "no-trunc", false, "print whole IDs and commands")
	fs.BoolVarP(&flags.quiet, "quiet", "q", false, "print IDs only")
	return cmd
}

// historyRow is a step of an image's history. Keys only grow.
type historyRow struct {
	ID        string `json:"id"`
	Created   string `json:"created"`
	CreatedAt string `json:"createdAt"`
	CreatedBy string `json:"createdBy"`
	Size      string `json:"size"`
	SizeBytes int64  `json:"sizeBytes"`
	Comment   string `json:"comment"`
	// Layer reports whether the step made a layer.
	Layer bool `json:"layer"`
}

var historyHeadings = map[string]string{
	"ID": "IMAGE", "Created": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE",
	"SizeBytes": "BYTES", "Comment": "COMMENT", "Layer": "LAYER",
}

func historyRows(e *builder.Engine, name string, flags historyFlags) ([]historyRow, error) {
	local, err := e.Transport().FindLocal(name, define.Platform{})
	if err != nil {
		return nil, err
	}
	img, err := image.Load(e.Store(), local.ID)
	if err != nil {
		return nil, err
	}
	sizes, err := imagestore.LayerSizes(e.Store(), img.TopLayer)
	if err != nil {
		return nil, err
	}
	rows := make([]historyRow, len(img.History))
	next := 0
	for i, h := range img.History {
		row := historyRow{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment, Layer: !h.EmptyLayer}
		if i == len(img.History)-1 {
			row.ID = idText(local.ID, flags.noTrunc)
		}
		if h.Created != nil {
			row.CreatedAt = h.Created.UTC().Format(time.RFC3339)
			if row.Created = row.CreatedAt; flags.human {
				row.Created = ago(*h.Created)
			}
		}
		if row.Layer && next < len(sizes) {
			row.SizeBytes = sizes[next]
			next++
		}
		if row.Size = strconv.FormatInt(row.SizeBytes, 10); flags.human {
			row.Size = sizeText(row.SizeBytes)
		}
		if r := []rune(row.CreatedBy); !flags.noTrunc && len(r) > 45 {
			row.CreatedBy = string(r[:44]) + "…"
		}
		rows[len(rows)-1-i] = row
	}
	return rows, nil
}

func (a *app) printHistory(rows []historyRow, format listFormat, quiet bool) error {
	switch {
	case quiet:
		for _, r := range rows {
			a.println(r.ID)
		}
		return nil
	case format.json:
		return a.printJSON(rows)
	case !format.plain:
		return render(a.out, format, rows, historyHeadings)
	}
	table := [][]string{{"IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"}}
	for _, r := range rows {
		table = append(table, []string{r.ID, r.Created, strings.TrimSpace(r.CreatedBy), r.Size, r.Comment})
	}
	if err := writeTable(a.out, table); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}
