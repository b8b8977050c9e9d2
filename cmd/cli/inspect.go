package cli

import (
	"encoding/json"
	"fmt"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
)

func newInspectCommand(a *app) *cobra.Command {
	var kind, format string
	cmd := &cobra.Command{
		Use:   "inspect [flags] container-or-image",
		Short: "Show what is known of a working container or an image",
		Long: `Show a working container, or else an image, of the store as one JSON document, with
the fields that buildah's inspect has. Templates see the same names, as in
{{.OCIv1.Config.Env}} or {{json .Docker.Config}}.`,
		Example: `  strata inspect app
  strata inspect --type image --format '{{.OCIv1.Config.Cmd}}' hello
  strata inspect --format '{{json .History}}' hello`,
		Args:              wantArgs(1, 1, "one container or image"),
		ValidArgsFunction: a.completeInspect,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch kind {
			case "", "container", "image":
			case "manifest":
				return fmt.Errorf("--type manifest: use manifest inspect %s: %w", args[0], define.ErrUnsupported)
			default:
				return fmt.Errorf("--type %q: want container or image: %w", kind, define.ErrInvalid)
			}
			f, err := parseListFormat(format, &inspection{})
			if err != nil {
				return err
			}
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			doc, err := inspect(cmd.Context(), engine, kind, args[0])
			if err != nil {
				return err
			}
			if f.template == nil {
				return a.printJSON(doc)
			}
			return render(a.out, f, []*inspection{doc}, nil)
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&format, "format", "f", "", "json, or a Go `template`")
	fs.StringVarP(&kind, "type", "t", "", "what the name names: container or image; give the `type` (default: a container, if there is one of the name)")
	_ = cmd.RegisterFlagCompletionFunc("type", fixedValues("container", "image"))
	return cmd
}

// inspection has buildah's fields, so that templates written for it work.
// Fields only grow.
type inspection struct {
	Type                  string
	FromImage             string
	FromImageID           string
	FromImageDigest       string
	Config                string
	Manifest              string
	Container             string
	ContainerID           string
	MountPoint            string
	ProcessLabel          string
	MountLabel            string
	ImageAnnotations      map[string]string
	ImageCreatedBy        string
	OCIv1                 v1.Image
	Docker                dockerImage
	DefaultMountsFilePath string
	Isolation             string
	NamespaceOptions      []namespaceOption
	Capabilities          []string
	ConfigureNetwork      string
	CNIPluginPath         string
	CNIConfigDir          string
	IDMappingOptions      idMappings
	History               []v1.History
	Devices               []string
	// Names, TopLayer and what follows are ours.
	Names    []string
	TopLayer string
	// Defaults are what runs in a container are confined by.
	Defaults *builder.Confinement `json:",omitempty"`
}

// namespaceOption is whose namespace of a kind runs have.
type namespaceOption struct {
	Name string
	Host bool
	Path string
}

// idMappings say that files have the owners that strata sees.
type idMappings struct {
	HostUIDMapping, HostGIDMapping bool
	UIDMap, GIDMap                 []string
}

// dockerImage is an image's config as Docker's format spells it.
type dockerImage struct {
	Created      string          `json:"created,omitempty"`
	Comment      string          `json:"comment,omitempty"`
	Author       string          `json:"author,omitempty"`
	Architecture string          `json:"architecture,omitempty"`
	Variant      string          `json:"variant,omitempty"`
	OS           string          `json:"os,omitempty"`
	Config       *image.Config   `json:"config,omitempty"`
	RootFS       *v1.RootFS      `json:"rootfs,omitempty"`
	History      []v1.History    `json:"history,omitempty"`
	Parent       json.RawMessage `json:"parent,omitempty"`
}

func inspectImage(e *builder.Engine, name string) (*inspection, error) {
	local, err := e.Transport().FindLocal(name, define.Platform{})
	if err != nil {
		return nil, err
	}
	s, err := image.Load(e.Store(), local.ID)
	if err != nil {
		return nil, err
	}
	doc := &inspection{
		Type: "strata " + version().Version, FromImage: local.Name, FromImageID: string(s.ID), FromImageDigest: s.Digest.String(),
		Config: string(s.RawConfig), Manifest: string(s.Manifest), ImageAnnotations: s.Annotations, History: s.History,
		Names: s.Names, TopLayer: string(s.TopLayer),
	}
	if doc.FromImage == "" && len(s.Names) > 0 {
		doc.FromImage = s.Names[0]
	}
	if len(s.RawConfig) == 0 { // a list of images has no config
		return doc, nil
	}
	for _, into := range []any{&doc.OCIv1, &doc.Docker} {
		if err := json.Unmarshal(s.RawConfig, into); err != nil {
			return nil, fmt.Errorf("image %s: its config is malformed: %w", name, err)
		}
	}
	if n := len(s.History); n > 0 {
		doc.ImageCreatedBy = s.History[n-1].CreatedBy
	}
	return doc, nil
}
