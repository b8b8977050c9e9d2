package cli

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/network"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// runFlags say how RUN steps run.
type runFlags struct {
	isolation, runtime         string
	runtimeFlags               []string
	network                    string
	capAdd, capDrop            []string
	volumes, ulimits           []string
	shmSize                    string
	addHosts                   []string
	dns, dnsSearch, dnsOptions []string
	httpProxy                  bool
	confineFlags
}

var isolations = []string{"default", "embedded", "oci", "rootless", "chroot"}

func (r *runFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&r.isolation, "isolation", "", "how RUN steps are confined: default (the strongest that works here), embedded, oci, rootless (the same as oci) or chroot; give the `kind`")
	fs.StringVar(&r.runtime, "runtime", "", "run steps with the OCI runtime of this `path`; implies --isolation oci")
	fs.StringSliceVar(&r.runtimeFlags, "runtime-flag", nil, "give the OCI runtime a `flag`, without its leading dashes")
	fs.StringVar(&r.network, "network", "", "network of RUN steps: private (a namespace of the build's own that reaches the outside), host, none, bridge (as private, by the kernel, for root), ns:PATH, container:PID, pasta or slirp4netns; give the `mode` (default: private where that can be had, else the host's, with a note)")
	fs.StringSliceVar(&r.capAdd, "cap-add", nil, "give RUN steps a `capability`, such as NET_ADMIN")
	fs.StringSliceVar(&r.capDrop, "cap-drop", nil, "take a `capability`, or ALL, from RUN steps")
	fs.StringArrayVarP(&r.volumes, "volume", "v", nil, "mount a directory of the host into RUN steps, as `source:target[:options]`: ro, O (what is written is thrown away), U (give it to the step's user), z or Z (label it for SELinux), bind (without what is mounted below it), nosuid, noexec, dev, or a propagation, which ends at the step")
	fs.StringSliceVar(&r.ulimits, "ulimit", nil, "limit RUN steps, as `name=soft[:hard]`, such as nofile=1024:4096")
	fs.StringVar(&r.shmSize, "shm-size", "65536k", "`size` of /dev/shm in RUN steps, in bytes or with a unit b, k, m or g")
	fs.StringSliceVar(&r.addHosts, "add-host", nil, "add a line to /etc/hosts of RUN steps, as `name:ip`")
	fs.StringSliceVar(&r.dns, "dns", nil, "use this DNS `server` in RUN steps instead of the host's; none leaves the image's own resolv.conf to them")
	fs.StringSliceVar(&r.dnsSearch, "dns-search", nil, "use this DNS search `domain` in RUN steps")
	fs.StringSliceVar(&r.dnsOptions, "dns-option", nil, "use this resolver `option` in RUN steps")
	fs.BoolVar(&r.httpProxy, "http-proxy", true, "pass the proxy variables of this process to RUN steps, and let a private network reach those proxies on the host's loopback device")
	r.confineFlags.add(cmd)
	_ = cmd.RegisterFlagCompletionFunc("isolation", fixedValues(isolations...))
	_ = cmd.RegisterFlagCompletionFunc("network", fixedValues("private", "host", "none", "bridge", "pasta", "slirp4netns"))
}

// engine returns the isolation, the runtime and its flags.
func (r *runFlags) engine(a *app) (kind, runtime string, flags []string, err error) {
	kind, runtime = r.isolation, r.runtime
	if kind != "" && !slices.Contains(isolations, kind) {
		return "", "", nil, fmt.Errorf("--isolation %q: want one of %s%s: %w", kind, strings.Join(isolations, ", "),
			didYouMean(kind, isolations, ""), define.ErrInvalid)
	}
	oci := kind == "oci" || kind == "rootless"
	switch {
	case runtime != "" && kind == "":
		kind, oci = "oci", true
	case runtime != "" && !oci:
		return "", "", nil, fmt.Errorf("--runtime is of use with --isolation oci only, not %s: %w", kind, define.ErrInvalid)
	case runtime == "" && oci:
		// A habit of the environment chooses among runtimes; it is no wish
		// for one where steps need none.
		runtime = a.getenv("BUILDAH_RUNTIME")
	}
	if len(r.runtimeFlags) > 0 && !oci {
		return "", "", nil, fmt.Errorf("--runtime-flag is of use with --isolation oci or --runtime only: %w", define.ErrInvalid)
	}
	return kind, runtime, r.runtimeFlags, nil
}

// options checks the flags' forms and translates them.
func (r *runFlags) options() (imagebuildah.RunOptions, error) {
	o := imagebuildah.RunOptions{
		CapAdd: r.capAdd, CapDrop: r.capDrop, Ulimits: r.ulimits, AddHosts: r.addHosts,
		DNS: r.dns, DNSSearch: r.dnsSearch, DNSOptions: r.dnsOptions, HTTPProxy: r.httpProxy,
	}
	var err error
	if o.Network, err = networkMode(r.network); err != nil {
		return o, err
	}
	if o.ShmSize, err = units.RAMInBytes(r.shmSize); err != nil || o.ShmSize < 0 {
		return o, fmt.Errorf("--shm-size %q: want bytes, or a number with a unit b, k, m or g: %w", r.shmSize, define.ErrInvalid)
	}
	for _, s := range r.dns {
		if s == "none" && len(r.dns) == 1 {
			break // the image's own file
		}
		if _, err := netip.ParseAddr(s); err != nil {
			return o, fmt.Errorf("--dns %q: want an IP address, or none alone for the image's own resolv.conf: %w", s, define.ErrInvalid)
		}
	}
	for _, v := range r.volumes {
		volume, err := parseVolume(v)
		if err != nil {
			return o, err
		}
		o.Volumes = append(o.Volumes, volume)
	}
	if err := r.confineFlags.options(&o); err != nil {
		return o, err
	}
	return o, checkRun(o)
}

// checkRun lets the package that will use the values judge them, so that a
// bad one is known before anything is done.
func checkRun(o imagebuildah.RunOptions) error {
	mode, gateway := cmp.Or(o.Network, builder.DefaultNetwork), netip.Addr{}
	if mode != isolation.NetworkHost && mode != isolation.NetworkNone {
		// networkMode has looked at it; it is made when a step needs it, and
		// will have a gateway.
		mode, gateway = isolation.NetworkNone, netip.IPv6Unspecified()
	}
	namespaces := o.Namespaces
	namespaces.User = "" // usernsFlags have looked at it
	_, err := isolation.NewSpec(isolation.Options{
		Args: []string{"true"}, Cwd: "/", Network: mode, HostGateway: gateway, Hosts: o.AddHosts, DNS: o.DNS, DNSSearch: o.DNSSearch,
		DNSOptions: o.DNSOptions, CapAdd: o.CapAdd, CapDrop: o.CapDrop, Ulimits: o.Ulimits, ShmSize: o.ShmSize,
		Volumes: builder.MountVolumes(o.Volumes), NoHosts: o.NoHosts, NoHostname: o.NoHostname, Devices: o.Devices, Namespaces: namespaces,
		Security: o.Security, Limits: o.Limits, Rootless: os.Geteuid() != 0,
	})
	return err
}

// networkMode checks the form of --network.
func networkMode(s string) (isolation.NetworkMode, error) {
	m, err := network.Parse(s)
	if err != nil {
		return "", fmt.Errorf("--%w", err)
	}
	if m.Kind == network.Default {
		return "", nil
	}
	return isolation.NetworkMode(s), nil
}

// parseVolume reads source:target[:options].
func parseVolume(s string) (isolation.Volume, error) {
	parts := strings.Split(s, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || !strings.HasPrefix(parts[1], "/") {
		return isolation.Volume{}, fmt.Errorf("--volume %q: want source:/target[:options], such as ./cache:/var/cache:ro: %w", s, define.ErrInvalid)
	}
	source, err := filepath.Abs(parts[0])
	if err != nil {
		return isolation.Volume{}, fmt.Errorf("--volume %q: %w", s, err)
	}
	v := isolation.Volume{Source: source, Target: parts[1]}
	if len(parts) == 2 {
		return v, nil
	}
	for o := range strings.SplitSeq(parts[2], ",") {
		switch o {
		case "ro":
			v.ReadOnly = true
		case builder.VolumeCopyUp, builder.VolumeCopyUpMode:
			return v, fmt.Errorf("--volume %q: %s is for tmpfs mounts: use --mount type=tmpfs,tmpcopyup: %w", s, o, define.ErrInvalid)
		}
		v.Options = append(v.Options, o)
	}
	return v, nil
}
