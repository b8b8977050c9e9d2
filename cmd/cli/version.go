package cli

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	imagespec "github.com/opencontainers/image-spec/specs-go"
	runtimespec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
)

// Set by the linker (-ldflags -X); the Makefile says how.
var (
	buildVersion = ""
	buildCommit  = ""
	buildDate    = ""
)

// imageModule is the library whose version buildah calls imageVersion.
const imageModule = "go.podman.io/image/v5"

// versionInfo has buildah's keys. Keys only grow.
type versionInfo struct {
	Version       string `json:"version"`
	GoVersion     string `json:"goVersion"`
	ImageSpec     string `json:"imageSpec"`
	RuntimeSpec   string `json:"runtimeSpec"`
	ImageVersion  string `json:"imageVersion"`
	GitCommit     string `json:"gitCommit"`
	Built         string `json:"built"`
	OsArch        string `json:"osArch"`
	BuildPlatform string `json:"buildPlatform"`
}

func version() versionInfo {
	v := versionInfo{
		Version: buildVersion, GoVersion: runtime.Version(), ImageSpec: imagespec.Version, RuntimeSpec: runtimespec.Version,
		GitCommit: buildCommit, Built: buildDate, OsArch: runtime.GOOS + "/" + runtime.GOARCH,
		BuildPlatform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	// Without the linker's stamps (go install) the module's own version tells.
	if v.Version == "" {
		v.Version = "unknown"
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
			v.Version = info.Main.Version
		}
	}
	return v
}

// imageVersion is read only where it is printed: it parses all modules' names.
func imageVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, d := range info.Deps {
		if d.Path == imageModule {
			return d.Version
		}
	}
	return ""
}

func newVersionCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version [flags]",
		Short: "Print versions",
		Long:  "Print the versions of strata, of Go and of the specifications that it follows.",
		Example: `  strata version
  strata version --json`,
		Args: wantArgs(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			v := version()
			v.ImageVersion = imageVersion()
			if asJSON {
				return a.printJSON(v)
			}
			for _, row := range [][2]string{
				{"Version", v.Version}, {"Go Version", v.GoVersion}, {"Image Spec", v.ImageSpec}, {"Runtime Spec", v.RuntimeSpec},
				{"image Version", v.ImageVersion}, {"Git Commit", v.GitCommit}, {"Built", v.Built}, {"OS/Arch", v.OsArch},
				{"BuildPlatform", v.BuildPlatform},
			} {
				a.println(fmt.Sprintf("%-16s%s", row[0]+":", row[1]))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printJSON prints a document as results are printed: indented by four
// spaces, with HTML's characters as they are.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "    ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
