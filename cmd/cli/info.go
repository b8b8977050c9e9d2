package cli

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/userns"
	"golang.org/x/sys/unix"
)

func newInfoCommand(a *app) *cobra.Command {
	var (
		format string
		debug  bool
	)
	cmd := &cobra.Command{
		Use:   "info [flags]",
		Short: "Show the machine and the store",
		Long: `Show the machine and the store as one JSON document. Templates see its keys, as
in {{.store.GraphRoot}}. Keys only grow.`,
		Example: `  strata info
  strata info --format '{{.store.GraphDriverName}}'`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := parseListFormat(format, map[string]any{})
			if err != nil {
				return err
			}
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			st, err := storeInfo(cmd, engine)
			if err != nil {
				return err
			}
			doc := map[string]any{"host": hostInfo(), "store": st}
			if debug {
				v := version()
				doc["debug"] = map[string]any{
					"compiler": runtime.Compiler, "git commit": v.GitCommit, "go version": v.GoVersion, "strata version": v.Version,
				}
			}
			if f.template == nil {
				return a.printJSON(doc)
			}
			f.template.Option("missingkey=error")
			return render(a.out, f, []map[string]any{doc}, nil)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&debug, "debug", "d", false, "show how strata itself was built as well")
	fs.StringVar(&format, "format", "", "json, or a Go `template`")
	return cmd
}

// hostInfo is about the machine. What cannot be read is left out.
func hostInfo() map[string]any {
	h := map[string]any{
		"os": runtime.GOOS, "arch": runtime.GOARCH, "cpus": runtime.NumCPU(), "rootless": userns.Current().Rootless,
		"CgroupVersion": cgroupVersion(), "Distribution": distribution(),
	}
	if name, err := os.Hostname(); err == nil {
		h["hostname"] = name
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		h["kernel"] = unix.ByteSliceToString(uts.Release[:])
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		unit := uint64(si.Unit)
		h["MemTotal"], h["MemFree"] = uint64(si.Totalram)*unit, uint64(si.Freeram)*unit
		h["SwapTotal"], h["SwapFree"] = uint64(si.Totalswap)*unit, uint64(si.Freeswap)*unit
		h["uptime"] = (time.Duration(si.Uptime) * time.Second).String()
	}
	return h
}

// cgroupVersion is "v2" where the unified hierarchy is all there is.
func cgroupVersion() string {
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return "v2"
	}
	return "v1"
}

// distribution reads os-release(5).
func distribution() map[string]string {
	d := map[string]string{"distribution": "unknown", "version": "unknown"}
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return d
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		key, value, _ := strings.Cut(line, "=")
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		switch key {
		case "ID":
			d["distribution"] = value
		case "VERSION_ID":
			d["version"] = value
		}
	}
	return d
}

func storeInfo(cmd *cobra.Command, e *builder.Engine) (map[string]any, error) {
	raw := e.Store().Raw()
	images, err := raw.Images()
	if err != nil {
		return nil, err
	}
	containers, err := raw.Containers()
	if err != nil {
		return nil, err
	}
	driver, err := raw.GraphDriver()
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for _, p := range driver.Status() {
		status[p[0]] = p[1]
	}
	records, layers, bytes, err := e.Cache().Usage(cmd.Context())
	if err != nil {
		return nil, err
	}
	zeroCopy, reason := e.Store().ZeroCopy()
	return map[string]any{
		"GraphDriverName": raw.GraphDriverName(), "GraphOptions": raw.GraphOptions(), "GraphRoot": raw.GraphRoot(),
		"RunRoot": raw.RunRoot(), "GraphStatus": status,
		"ImageStore":     map[string]int{"number": len(images)},
		"ContainerStore": map[string]int{"number": len(containers)},
		"BuildCache":     map[string]any{"records": records, "layers": layers, "bytes": bytes},
		"ZeroCopy":       map[string]any{"enabled": zeroCopy, "reason": reason},
	}, nil
}
