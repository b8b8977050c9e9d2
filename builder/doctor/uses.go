package doctor

import (
	"context"
	"os"
	"strings"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/network"
)

// tools are programs that strata can make use of, and never needs.
var tools = []struct{ name, purpose string }{
	{"crun", "--isolation oci"},
	{"runc", "--isolation oci"},
	{"pasta", "--network pasta"},
	{"slirp4netns", "--network slirp4netns"},
	{"fuse-overlayfs", "storage.conf's mount_program; overlay mounts of the kernel's are faster"},
	{"git", "git repositories as contexts and in ADD"},
}

func (x *examiner) programs(context.Context) {
	for _, t := range tools {
		id := "programs." + strings.ReplaceAll(t.name, "-", "_")
		path, err := x.lookPath(t.name)
		if err != nil {
			f := x.fact(id, t.name, "not installed; only for: %s", t.purpose)
			f.with("installed", false)
			if t.name == "git" {
				f.State, f.Remedy = Lesser, "apt-get install git, if you use them"
			}
			continue
		}
		x.fact(id, t.name, "%s; only for: %s", path, t.purpose).with("path", path).with("installed", true)
	}
	helpers := x.credentialHelpers()
	if len(helpers) > 0 {
		x.fact("programs.credential_helpers", "credential helpers", "%s", strings.Join(helpers, ", ")).with("names", helpers)
	}
}

// credentialHelpers are those that people have, of docker's and the clouds'.
func (x *examiner) credentialHelpers() (found []string) {
	for _, n := range []string{"secretservice", "pass", "ecr-login", "gcr", "gcloud", "acr-env"} {
		if _, err := x.lookPath("docker-credential-" + n); err == nil {
			found = append(found, n)
		}
	}
	return found
}

// uses says what a build would be made with, and whether one can be made.
func (x *examiner) uses(ctx context.Context) {
	i := x.o.Namespaces
	if x.o.Refused != nil {
		x.report.Reason = firstLine(x.o.Refused.Error())
	}
	x.useIsolation(ctx)
	switch {
	case x.o.Refused != nil:
		x.use("ids", "ids", Missing, "none", x.namespaceRemedy("max_user_namespaces", x.o.Refused))
	case i.SingleID:
		text := "one id: other users and owners than root are in the image only"
		if builder.RemembersOwners(x.isolation) != nil {
			text = "one id: COPY and ADD give files to others in the image only; chown in steps, and USER, need a range"
		}
		x.use("ids", "ids", Lesser, text, x.remedyOf("ids.newuidmap", "ids.newgidmap", "ids.ranges", "ids.map"))
	case i.Rootless:
		x.use("ids", "ids", OK, "a range of ids, in a user namespace", "")
	default:
		x.use("ids", "ids", OK, "all ids, as root", "")
	}
	if i.SingleID {
		x.useOwners()
	}
	for _, f := range x.report.Host {
		switch f.ID {
		case "storage.root":
			if f.State == Missing && x.report.Reason == "" {
				x.report.Reason = "no store: " + f.Text
			}
			x.use("store", "store", f.State, f.Text, f.Remedy)
		case "storage.driver":
			if f.State == Missing && x.report.Reason == "" {
				x.report.Reason = f.Text
			}
			x.use("storage", "storage driver", f.State, f.Text, f.Remedy)
		case "storage.runroot":
			if f.State == Missing && x.report.Reason == "" {
				x.report.Reason = f.Text
			}
		case "storage.zero_copy":
			x.use("layers", "layers", f.State, f.Text, f.Remedy)
		case "cgroups.delegation", "cgroups.version":
			if f.ID == "cgroups.delegation" || f.State == Missing {
				x.use("limits", "limits", f.State, f.Text, f.Remedy)
			}
		}
	}
	x.useNetwork(ctx)
	x.report.Usable = x.report.Reason == ""
}

// useOwners says what becomes of owners that RUN steps give, where one id is
// mapped.
func (x *examiner) useOwners() {
	const id, name = "owners", "owners of RUN"
	if err := builder.RemembersOwners(x.isolation); err != nil {
		x.use(id, name, Lesser, "chown to others fails: "+firstLine(err.Error()), x.remedyOf("ids.newuidmap", "ids.newgidmap", "ids.ranges", "ids.map"))
		return
	}
	x.use(id, name, OK, "remembered by seccomp notification, and written to the layer", "")
}

// useIsolation asks the engine for its choice.
func (x *examiner) useIsolation(ctx context.Context) {
	if x.o.Refused != nil {
		x.use("isolation", "isolation", Missing, "none: "+firstLine(x.o.Refused.Error()), x.namespaceRemedy("max_user_namespaces", x.o.Refused))
		return
	}
	tmp := x.tempDir()
	if tmp != "" {
		defer os.Remove(tmp)
	}
	name, note, err := builder.ChosenIsolation(ctx, tmp)
	x.isolation = name
	switch {
	case err != nil:
		// COPY and ADD need no isolation: such images can still be built.
		x.use("isolation", "isolation", Missing, "RUN steps cannot be executed: "+firstLine(err.Error()), "run as root, or see namespaces above")
	case note != "":
		x.use("isolation", "isolation", Lesser, name+": "+note, x.remedyOf("namespaces.proc", "namespaces.user", "namespaces.mount", "namespaces.pid"))
	default:
		x.use("isolation", "isolation", OK, name+": namespaces of its own for each step", "")
	}
	if !x.o.Namespaces.PIDNamespace && err == nil {
		x.use("killing", "kill -9", Lesser, "may leave processes of steps behind: strata has no pid namespace of its own", x.remedyOf("namespaces.proc"))
	}
}

// useNetwork makes a private network, as a build would, and says what steps
// get when nobody asks.
func (x *examiner) useNetwork(ctx context.Context) {
	const id, name = "network", "network"
	if x.isolation == "chroot" {
		x.use(id, name, Lesser, "the host's, as is usual with chroot isolation", x.remedyOf("namespaces.network"))
		return
	}
	kind, err := x.tryNetwork(ctx, x.o.Namespaces.Rootless)
	if err != nil {
		remedy := x.remedyOf("namespaces.network", "network.tun")
		if remedy == "" {
			remedy = "run strata as root, or where it may make a user namespace; --network host asks for the host's"
		}
		x.use(id, name, Lesser, "the host's, because one of the steps' own cannot be had: "+firstLine(err.Error()), remedy)
		return
	}
	x.use(id, name, OK, "the steps' own: "+kind, "")
}

// tryNetwork makes a private network and ends it.
func tryNetwork(ctx context.Context, rootless bool) (kind string, err error) {
	n, err := network.Open(ctx, network.Options{Mode: network.Mode{Kind: network.Private}, Rootless: rootless})
	if err != nil {
		return "", err
	}
	return n.Kind(), n.Close()
}

// remedyOf is the remedy of the first of the findings that has one.
func (x *examiner) remedyOf(ids ...string) string {
	for _, id := range ids {
		for _, f := range x.report.Host {
			if f.ID == id && f.State != OK && f.Remedy != "" {
				return f.Remedy
			}
		}
	}
	return ""
}
