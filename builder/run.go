package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// DefaultPath is PATH for steps whose image sets none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Confinement is what the user's flags say about steps: the same for all
// steps of a build, and part of their cache keys.
type Confinement struct {
	Network                    isolation.NetworkMode // "": DefaultNetwork
	CapAdd, CapDrop, Ulimits   []string
	ShmSize                    int64 // bytes; 0: 64 MiB
	AddHosts                   []string
	DNS, DNSSearch, DNSOptions []string
	Volumes                    []isolation.Volume
	// Hostname is "" for a random one. NoHosts and NoHostname leave the
	// image's own /etc/hosts and /etc/hostname to the step.
	Hostname            string
	NoHosts, NoHostname bool
	// GroupAdd are further supplementary groups, as names of the root's
	// /etc/group or numbers; "keep-groups" alone leaves those of this process
	// to the step.
	GroupAdd []string
	Devices  []isolation.Device
	// CDI are devices of specifications in CDIDirs (cdi.DefaultDirs when
	// empty), by their full names.
	CDI, CDIDirs []string

	Namespaces isolation.Namespaces
	// IDMap gives steps a user namespace of their own.
	IDMap    isolation.IDMap
	Security isolation.Security
	Limits   isolation.Limits
	// HTTPProxy passes the proxy variables of this process to steps. They
	// are no part of the image, the history or the cache key.
	HTTPProxy bool
}

// Run is one process to run in a container.
type Run struct {
	// Args is the command, executed as it is (no shell).
	Args []string
	// Env is added to the image's environment for this process only.
	Env []string
	// User and Dir replace the image's USER and WORKDIR when set.
	User, Dir string
	// Files are mounted over the root's, by destination, for this run.
	Files map[string][]byte
	// Mounts are further volumes, of this run only (RUN --mount).
	Mounts []isolation.Volume
	// Stdin may be nil. Without Stdout and Stderr the output is reported as
	// events of Step.
	Stdin          *os.File
	Stdout, Stderr *os.File
	// Terminal is one in the place of the three; nil is none.
	Terminal    *isolation.Terminal
	Step        *define.Step
	Confinement Confinement
}

// Run runs a process on the container's root; its changes stay open. A
// process that fails gives an *isolation.ExitError.
func (c *Container) Run(ctx context.Context, r Run) (err error) {
	c.engine.beginNetwork(ctx, &r.Confinement)
	driver, err := c.engine.Driver(ctx)
	if err != nil {
		return err
	}
	spec, done, err := c.spec(ctx, driver.Name(), r)
	defer func() {
		if e := done(); e != nil && err == nil {
			err = e
		}
	}()
	if err != nil {
		return err
	}
	step := &isolation.Step{Spec: spec, Root: c.working.Root(), Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr}
	back, err := c.mapStep(step, r.Mounts)
	defer func() {
		if e := back(); e != nil && err == nil {
			err = e
		}
	}()
	if err != nil {
		return err
	}
	if r.Terminal != nil || r.Stdout != nil && r.Stderr != nil {
		return c.runRemembering(ctx, driver, step, r)
	}
	out, err := newOutput(c.engine.opts.Listener, r.Step)
	if err != nil {
		return err
	}
	step.Stdout, step.Stderr = out.stdout, out.stderr
	err = c.runRemembering(ctx, driver, step, r)
	return errors.Join(err, out.close())
}

// spec opens the working root, with the mount points the step needs below it,
// and describes the step. What it returns is to be called when the step has
// ended, also after an error.
func (c *Container) spec(ctx context.Context, driver string, r Run) (_ *isolation.Spec, done func() error, err error) {
	done = func() error { return nil }
	w, err := c.openForRun(ctx)
	if err != nil {
		return nil, done, err
	}
	o := c.isolationOptions(r)
	if err := c.engine.chooseMap(&o); err != nil {
		return nil, done, err
	}
	if err := checkMapped(driver, o.IDMap); err != nil {
		return nil, done, err
	}
	if err := checkOwn(driver, &o); err != nil {
		return nil, done, err
	}
	if err := c.engine.joinNetwork(ctx, driver, &o, r.Confinement.HTTPProxy); err != nil {
		return nil, done, err
	}
	err = withRoot(w.Root(), func(root *copier.Root) error { return c.resolveAccount(root, r, &o) })
	if err != nil {
		return nil, done, err
	}
	user := isolation.Identity{UID: o.UID, GID: o.GID, Groups: o.Groups}
	told := c.tell(driver, &o)
	if err := o.CheckUser(); err != nil {
		return nil, done, err
	}
	if err := useCDI(&r.Confinement, &o); err != nil {
		return nil, done, err
	}
	if done, err = c.openVolumes(ctx, w.Root(), &o, user); err != nil {
		return nil, done, err
	}
	spec, err := isolation.NewSpec(o)
	if err != nil {
		return nil, done, err
	}
	spec.Told = told
	for dest, content := range r.Files {
		if spec.Files == nil {
			spec.Files = map[string][]byte{}
		}
		spec.Files[dest] = content
	}
	made, err := isolation.MakeTargets(w.Root(), spec.Targets())
	c.omit = append(c.omit, made...)
	return spec, done, err
}

// checkOwn refuses namespaces of the step's own, where they were asked for and
// the isolation gives none.
func checkOwn(driver string, o *isolation.Options) error {
	if driver != "chroot" {
		return nil
	}
	n := &o.Namespaces
	for _, own := range []struct {
		name string
		mode isolation.NamespaceMode
	}{{"pid", n.PID}, {"ipc", n.IPC}, {"uts", n.UTS}, {"cgroup", n.Cgroup}} {
		if own.mode == isolation.NamespacePrivate || own.mode == "container" {
			return fmt.Errorf("%s namespace %s: chroot isolation gives none; use --isolation embedded, or leave the mode out: %w", own.name, own.mode, define.ErrUnsupported)
		}
	}
	if o.Hostname != "" {
		return fmt.Errorf("hostname %s: chroot isolation shows the host's; use --isolation embedded, or leave the name out: %w", o.Hostname, define.ErrUnsupported)
	}
	return nil
}

// openForRun opens the working root on top of the skeleton that holds the
// usual mount points, so that making them changes nothing of the layer.
func (c *Container) openForRun(ctx context.Context) (*layer.Working, error) {
	if c.working != nil {
		return c.working, nil
	}
	bottom, err := c.space.Skeleton(ctx)
	if err != nil {
		return nil, err
	}
	return c.begin(ctx, layer.BeginOptions{Bottom: bottom})
}

func (c *Container) isolationOptions(r Run) isolation.Options {
	f := r.Confinement
	o := isolation.Options{
		Args: r.Args, Env: c.runEnv(r), Cwd: r.Dir, Terminal: r.Terminal,
		Hostname: f.Hostname, NoHosts: f.NoHosts, NoHostname: f.NoHostname,
		Devices: f.Devices, Namespaces: f.Namespaces, IDMap: f.IDMap, Security: f.Security, Limits: f.Limits,
		Network: f.Network, Hosts: f.AddHosts, DNS: f.DNS, DNSSearch: f.DNSSearch, DNSOptions: f.DNSOptions,
		CapAdd: f.CapAdd, CapDrop: f.CapDrop, Ulimits: f.Ulimits, ShmSize: f.ShmSize, Volumes: append(append([]isolation.Volume(nil), f.Volumes...), r.Mounts...),
		Rootless: c.engine.opts.Rootless, SingleID: c.engine.opts.SingleID,
	}
	if o.Cwd == "" {
		o.Cwd = c.Image.Config.WorkingDir
	}
	o.Cwd = path.Clean("/" + o.Cwd)
	o.Limits.Manager = c.engine.opts.CgroupManager
	return o
}

// runEnv is the environment of a step: PATH when nothing sets it, proxies,
// the image's variables, the step's own. Image entries without "=" are
// dropped: they must not be filled from the host (CVE-2020-14370).
func (c *Container) runEnv(r Run) []string {
	var env envList
	env.set("PATH=" + DefaultPath)
	if r.Confinement.HTTPProxy {
		for _, name := range ProxyVariables {
			if v, ok := os.LookupEnv(name); ok {
				env.set(name + "=" + v)
			}
		}
	}
	for _, kv := range c.Image.Config.Env {
		env.set(kv)
	}
	for _, kv := range r.Env {
		env.set(kv)
	}
	return env
}

// ProxyVariables are the variables that reach steps without being declared.
var ProxyVariables = []string{
	"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy",
	"FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy",
}

// envList is an environment in which a later setting replaces an earlier one.
type envList []string

func (e *envList) set(kv string) {
	name, _, ok := strings.Cut(kv, "=")
	if !ok || name == "" {
		return
	}
	for i, old := range *e {
		if strings.HasPrefix(old, name+"=") {
			(*e)[i] = kv
			return
		}
	}
	*e = append(*e, kv)
}

// resolveAccount fills in what only the root can tell: the user's numbers and
// home, and that the working directory exists.
func (c *Container) resolveAccount(root *copier.Root, r Run, o *isolation.Options) error {
	name := r.User
	if name == "" {
		name = c.Image.Config.User
	}
	u, err := root.User(name)
	if err != nil {
		return err
	}
	o.UID, o.GID, o.Groups = u.UID, u.GID, u.Groups
	if err := addGroups(root, r.Confinement.GroupAdd, o); err != nil {
		return err
	}
	home := false
	for _, kv := range o.Env {
		home = home || strings.HasPrefix(kv, "HOME=")
	}
	if !home {
		o.Env = append(o.Env, "HOME="+u.Home)
	}
	return ensureDir(root, o.Cwd, copier.Owner{})
}

// keepGroups is the value of --group-add that is no group.
const keepGroups = "keep-groups"

// addGroups adds supplementary groups, by names of the root's /etc/group.
func addGroups(root *copier.Root, names []string, o *isolation.Options) error {
	for _, name := range names {
		if name == keepGroups {
			if len(names) > 1 {
				return fmt.Errorf("group %s: stands alone, other groups cannot be added to it: %w", keepGroups, define.ErrInvalid)
			}
			o.KeepGroups = true
			return nil
		}
		gid, err := root.Group(name)
		if err != nil {
			return fmt.Errorf("--group-add: %w", err)
		}
		if !slices.Contains(o.Groups, gid) {
			o.Groups = append(o.Groups, gid)
		}
	}
	return nil
}

// ensureDir makes a step's working directory when the root lacks it, as
// runtimes do.
func ensureDir(root *copier.Root, dir string, owner copier.Owner) error {
	info, err := root.Stat(dir, true)
	switch {
	case err == nil && info.Mode.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("working directory %s: not a directory", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("working directory %s: %w", dir, err)
	}
	if _, err := root.MkdirAll(dir, copier.Mkdir{Owner: owner}); err != nil {
		return fmt.Errorf("working directory %s: %w", dir, err)
	}
	return nil
}
