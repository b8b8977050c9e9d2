package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder/doctor"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/cmd/internal/ui"
)

// exitUnusable is the doctor's status where nothing can be built.
const exitUnusable = 1

// errUnusable says why nothing can be built on this host.
type errUnusable struct{ reason string }

func (e *errUnusable) Error() string { return "images cannot be built here: " + e.reason }

func newDoctorCommand(a *app) *cobra.Command {
	var asJSON, problems bool
	cmd := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Say what this host offers to builds, and what strata uses of it",
		Long: `Say what strata will use on this host and what the host offers: namespaces, id
maps, overlay mounts, control groups, seccomp, storage, networks, emulators,
configuration files, credentials and programs. Things are tried, not guessed;
nothing is left behind, no rights are needed, and no secret is shown.

Each line has a mark: ok; lesser, for what works with less speed, confinement or
ids than there could be; missing. Below a lesser choice is what would enable the
better one. The exit status is 0 unless nothing can be built at all (1).

With --json the report is a document of version 1, whose keys and ids are only
ever added to.`,
		Example: `  strata doctor
  strata doctor --problems
  strata doctor --json | jq '.uses[] | select(.state != "ok")'`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := doctor.Options{Store: a.global.store()}
			if err := a.enter(true); err != nil {
				// Nothing else keeps the doctor from its work.
				info := userns.Current()
				a.namespaces, o.Refused = &info, err
			}
			o.Namespaces = *a.namespaces
			o.Store.SingleID = o.Namespaces.SingleID
			report := doctor.Examine(cmd.Context(), o)
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			if asJSON {
				if err := a.printJSON(report); err != nil {
					return err
				}
			} else {
				a.printReport(report, problems)
			}
			if !report.Usable {
				return &errUnusable{report.Reason}
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&asJSON, "json", false, "print JSON")
	fs.BoolVar(&problems, "problems", false, "show only what is lesser or missing")
	return cmd
}

// marks are the colours of states (ECMA-48).
var marks = map[doctor.State]string{doctor.OK: "32", doctor.Lesser: "33", doctor.Missing: "1;31", doctor.Neutral: "2"}

// printReport writes findings as a table with a heading for each group.
func (a *app) printReport(r *doctor.Report, problems bool) {
	colour := isTerminal(a.std.Out) && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
	paint := func(code, s string) string {
		if !colour {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	all := make([]doctor.Finding, 0, len(r.Uses)+len(r.Host))
	all = append(append(all, r.Uses...), r.Host...)
	width := 0
	for _, f := range all {
		width = max(width, len(f.Name))
	}
	group := ""
	for _, f := range all {
		if problems && f.State != doctor.Lesser && f.State != doctor.Missing {
			continue
		}
		if f.Group != group {
			if group != "" {
				a.println()
			}
			group = f.Group
			a.println(paint("1", group))
		}
		mark := string(f.State)
		if f.State == doctor.Neutral {
			mark = "-"
		}
		pad := strings.Repeat(" ", len("missing")-len(mark))
		mark = paint(marks[f.State], mark) + pad
		name := f.Name + strings.Repeat(" ", width-len(f.Name))
		a.println("  " + mark + "  " + name + "  " + ui.Clean(f.Text))
		if f.Remedy != "" {
			a.println("  " + strings.Repeat(" ", len("missing")+width+4) + "-> " + ui.Clean(f.Remedy))
		}
	}
}
