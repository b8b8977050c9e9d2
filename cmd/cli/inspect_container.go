package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
)

// inspect looks for a container first, then for an image.
func inspect(ctx context.Context, e *builder.Engine, kind, name string) (*inspection, error) {
	if kind == "image" {
		return inspectImage(e, name)
	}
	d, err := e.InspectContainer(ctx, name)
	if err == nil {
		return inspectContainer(e, d)
	}
	if kind == "container" || !errors.Is(err, define.ErrNotFound) {
		return nil, err
	}
	doc, imageErr := inspectImage(e, name)
	if errors.Is(imageErr, define.ErrNotFound) {
		return nil, fmt.Errorf("%q is neither a container (see containers --all) nor an image of the store: %w", name, define.ErrNotFound)
	}
	return doc, imageErr
}

func inspectContainer(e *builder.Engine, d *builder.ContainerDetails) (*inspection, error) {
	doc := &inspection{
		Type: "strata " + version().Version, FromImage: d.Base.Name, FromImageID: string(d.Base.ID), FromImageDigest: d.Base.Digest,
		Container: d.Name, ContainerID: d.ID, MountPoint: d.MountPoint, ImageAnnotations: d.Image.Annotations,
		Isolation: or(d.Settings.Isolation, "default"), NamespaceOptions: namespaceOptions(&d.Defaults),
		IDMappingOptions: hostMappings(), History: d.Image.History, Devices: []string{}, Names: d.Names, TopLayer: d.LayerID,
		Defaults: &d.Defaults,
	}
	if d.Settings.Runtime != "" && d.Settings.Isolation == "" {
		doc.Isolation = "oci"
	}
	doc.Devices = append(doc.Devices, d.Defaults.CDI...)
	for _, device := range d.Defaults.Devices {
		doc.Devices = append(doc.Devices, device.Source)
	}
	doc.ConfigureNetwork = "NetworkDefault"
	if d.Defaults.Network == isolation.NetworkNone {
		doc.ConfigureNetwork = "NetworkDisabled"
	}
	var err error
	if doc.Capabilities, err = capabilities(&d.Defaults); err != nil {
		return nil, fmt.Errorf("container %s: %w", d.Name, err)
	}
	var layers []image.Layer
	if d.Base.ID != "" {
		// The image may have been removed; what the container needs of it stays.
		base, err := image.Load(e.Store(), d.Base.ID)
		if err == nil {
			doc.Config, doc.Manifest = string(base.RawConfig), string(base.Manifest)
			for _, id := range base.DiffIDs {
				layers = append(layers, image.Layer{DiffID: id, Digest: id})
			}
		} else if !errors.Is(err, define.ErrNotFound) {
			return nil, err
		}
	}
	return doc, doc.describe(d.Image, layers)
}

// describe fills in the configuration in both formats.
func (doc *inspection) describe(i *image.Image, layers []image.Layer) error {
	// An image is made of it when it is committed; only then history and
	// layers fit.
	plain := i.Clone()
	plain.History = nil
	for format, into := range map[define.Format]any{define.FormatOCI: &doc.OCIv1, define.FormatDocker: &doc.Docker} {
		enc, err := plain.Encode(format, layers)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(enc.Config, into); err != nil {
			return err
		}
	}
	doc.OCIv1.History, doc.Docker.History = i.History, i.History
	return nil
}

// namespaceOptions are sorted by name, as buildah has them.
func namespaceOptions(c *builder.Confinement) []namespaceOption {
	n := c.Namespaces
	list := []namespaceOption{{Name: "mount"}, {Name: "network", Host: c.Network == isolation.NetworkHost},
		{Name: "user", Host: c.IDMap.IsZero() && (n.User == "" || n.User == isolation.NamespaceHost)}}
	for name, mode := range map[string]isolation.NamespaceMode{"cgroup": n.Cgroup, "ipc": n.IPC, "pid": n.PID, "uts": n.UTS} {
		o := namespaceOption{Name: name, Host: mode == isolation.NamespaceHost}
		if len(mode) > 0 && mode[0] == '/' {
			o.Path = string(mode)
		}
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b namespaceOption) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return list
}

func hostMappings() idMappings {
	return idMappings{HostUIDMapping: true, HostGIDMapping: true, UIDMap: []string{}, GIDMap: []string{}}
}

// capabilities are those of a run by root.
func capabilities(c *builder.Confinement) ([]string, error) {
	spec, err := isolation.NewSpec(isolation.Options{Args: []string{"true"}, Cwd: "/", CapAdd: c.CapAdd, CapDrop: c.CapDrop})
	if err != nil {
		return nil, err
	}
	return spec.Process.Capabilities.Bounding, nil
}

// completeInspect completes containers, and images.
func (a *app) completeInspect(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	containers, _ := a.completeContainers(1)(cmd, args, start)
	images, directive := a.completeImages(1)(cmd, args, start)
	return slices.Concat(containers, images), directive
}
