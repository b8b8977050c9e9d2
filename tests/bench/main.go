// Command bench times builds, and what goes with them, with strata, with other
// builders, and with a yardstick: a shell script that does by hand the least
// that such work needs.
//
//	go run ./tests/bench [-runs N] [-only REGEXP] [-tools LIST] [-json FILE]
//	                     [-strata PATH] [-dir DIR] [-disk GIB] [-calls=false]
//	                     [-memory=false] [-small] [-list]
//	go run ./tests/bench -compare OLD.json NEW.json
//
// All tools get the same Containerfile, context and base image, each has a
// store of its own below DIR, and their runs alternate, each time with another
// one first. The first run of each is dropped, file systems are synced before
// each. The table holds medians of wall time of whole processes and of their
// processor time, and what went to the disk, where bench has a disk of its
// own; elsewhere, what the processes made dirty. Memory is that of all
// processes of the tool together (see sampler), from one run more, and system
// calls are of another, under strace. FILE gets every run, and the largest
// resident set that one process had (wait4(2); below 8 MiB it shows bench's
// own). Of the tools with a daemon (docker, buildctl) processor time and calls
// are not known. A dash in the table has its reason below it. The tool
// rootless is strata as a user with subordinate ids, whom root makes and
// removes: beside strata, the table has a column of what a user namespace
// costs. What a step more costs is computed from the rows of few and of many.
//
// DIR must have some 24 GiB free, without disks of its own more. ext4 needs a millisecond and more to make a
// file in places where many files were deleted in the last five minutes
// (recently_deleted in fs/ext4/ialloc.c), which tells nothing about tools.
// Hence a row deletes no small files, and root gets a fresh ext4 in a sparse
// file of DIR for each row; with -disk 0, and for others, wait after work that
// removes trees, or let DIR be a tmpfs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/stratabuild/strata/tests/baseimage"
	"github.com/stratabuild/strata/tests/testenv"
	"golang.org/x/sys/unix"
)

const allTools = "strata,rootless,buildah,podman,docker,buildctl,yardstick"

// options are the command line.
type options struct {
	runs   int
	only   *regexp.Regexp
	tools  []string
	json   string
	strata string
	dir    string
	disk   int // GiB
	calls  bool
	memory bool
	hasty  bool // tests do not wait for the disk
	scale  scale
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == measureArg {
		measureMain(os.Args[2:])
	}
	var o options
	flag.IntVar(&o.runs, "runs", 5, "timed runs of each row and tool")
	only := flag.String("only", "", "rows to run, as a regular expression over their names")
	tools := flag.String("tools", allTools, "tools to time, as far as they are there: rootless is strata as a user made for it, buildctl is what "+buildctlVariable+" names")
	flag.StringVar(&o.json, "json", "", "write all results to this file")
	flag.StringVar(&o.strata, "strata", "", "the strata binary (default: built from this checkout)")
	flag.StringVar(&o.dir, "dir", "", "where contexts and stores lie (default: the temporary directory)")
	flag.IntVar(&o.disk, "disk", 32, "as root: each row runs on a fresh ext4 of that many GiB in a sparse file below DIR; 0: in DIR itself")
	flag.BoolVar(&o.calls, "calls", true, "as root: count system calls in one more run of each row, where there is strace")
	flag.BoolVar(&o.memory, "memory", true, "look at the memory of all processes in one more run of each row")
	few := flag.Bool("small", false, "next to nothing in each row: whether rows work, not what they take")
	list := flag.Bool("list", false, "print the rows' names and end")
	pair := flag.Bool("compare", false, "compare two files of -json: OLD NEW")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	o.scale = full
	if *few {
		o.scale = small
	}
	o.tools = strings.Split(*tools, ",")
	var err error
	o.only, err = regexp.Compile(*only)
	if o.strata != "" && err == nil {
		o.strata, err = filepath.Abs(o.strata)
	}
	switch {
	case err != nil:
	case *pair && flag.NArg() != 2:
		err = errors.New("-compare wants two files, OLD and NEW")
	case *pair:
		err = compare(os.Stdout, flag.Arg(0), flag.Arg(1))
	case *list:
		for _, r := range rows(o.scale) {
			fmt.Println(r.name)
		}
	default:
		err = bench(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// bench runs the rows and reports; results so far are reported even when a
// row fails.
func bench(ctx context.Context, o options) (err error) {
	if o.runs < 1 {
		return fmt.Errorf("-runs %d: at least one is needed", o.runs)
	}
	work, err := os.MkdirTemp(o.dir, "strata-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, testenv.RemoveStore(work)) }()
	s := &session{o: o, work: work, top: work}
	defer func() {
		for _, f := range slices.Backward(s.cleanup) {
			err = errors.Join(err, f())
		}
	}()
	if o.disk > 0 {
		err := s.freshWork(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			s.say("no fresh file system: %v", err)
			s.o.disk = 0
		}
	}
	busybox, err := baseimage.Busybox(ctx, work)
	if err != nil {
		return err
	}
	s.base, s.busybox = filepath.Join(s.top, "base"), busybox
	if s.baseDigest, err = baseimage.Write(s.base, baseimage.Ref, busybox); err != nil {
		return err
	}
	if err := s.findTools(ctx); err != nil {
		return err
	}
	report := s.describe(ctx)
	s.say("%s", report.Machine)
	for _, r := range rows(o.scale) {
		if !o.only.MatchString(r.name) || ctx.Err() != nil {
			continue
		}
		results, rowErr := s.row(ctx, r)
		if rowErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", r.name, rowErr))
		}
		report.Results = append(report.Results, results...)
	}
	err = errors.Join(err, ctx.Err())
	report.derive(o.scale)
	report.print(os.Stdout)
	if o.json != "" {
		err = errors.Join(err, report.write(o.json))
	}
	return err
}
