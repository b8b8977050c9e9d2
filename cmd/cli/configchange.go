package cli

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// configChange is what the flags of config come to: changes of an image, in
// the order in which they are made.
type configChange struct {
	steps      []func(img *image.Image, note *builder.LayerNote) error
	addHistory bool
	warnings   []string
}

func (c *configChange) apply(img *image.Image, note *builder.LayerNote) error {
	for _, step := range c.steps {
		if err := step(img, note); err != nil {
			return err
		}
	}
	return nil
}

// do adds a change; history is the instruction that would make it, "" when
// none would.
func (c *configChange) do(history string, change func(img *image.Image)) {
	c.steps = append(c.steps, func(img *image.Image, _ *builder.LayerNote) error {
		change(img)
		c.record(img, history)
		return nil
	})
}

func (c *configChange) record(img *image.Image, history string) {
	if c.addHistory && history != "" {
		now := time.Now().UTC()
		img.History = append(img.History, image.History{Created: &now, CreatedBy: history, EmptyLayer: true})
	}
}

// plan checks every value. It touches no store.
func (f *configFlags) plan(a *app, cmd *cobra.Command) (*configChange, error) {
	c := &configChange{addHistory: f.addHistory}
	set := cmd.Flags().Changed
	f.planSingle(c, set)
	for _, step := range []func() error{
		func() error { return f.planPlatform(c, set) },
		func() error { return f.planEnv(a, c) },
		func() error { return f.planMaps(c) },
		func() error { return f.planPorts(c) },
		func() error { return f.planLists(c) },
		func() error { return f.planCommands(c, set) },
		func() error { return f.health.plan(c, set) },
		func() error { return f.planChecked(c, set) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// planSingle is about settings that take any text.
func (f *configFlags) planSingle(c *configChange, set func(string) bool) {
	text := func(flag, instruction, value string, field func(*image.Image) *string) {
		if !set(flag) {
			return
		}
		if instruction != "" {
			instruction += " " + value
		}
		c.do(instruction, func(img *image.Image) { *field(img) = value })
	}
	text("author", "", f.author, func(i *image.Image) *string { return &i.Author })
	text("comment", "", f.comment, func(i *image.Image) *string { return &i.Comment })
	text("hostname", "", f.hostName, func(i *image.Image) *string { return &i.Config.Hostname })
	text("domainname", "", f.domainName, func(i *image.Image) *string { return &i.Config.Domainname })
	for flag, value := range map[string]string{"comment": f.comment, "hostname": f.hostName, "domainname": f.domainName} {
		if set(flag) && value != "" {
			c.warnings = append(c.warnings, fmt.Sprintf("--%s %s: only images of the docker format hold it; use commit --format docker", flag, value))
		}
	}
	slices.Sort(c.warnings)
	c.steps = append(c.steps, func(_ *image.Image, note *builder.LayerNote) error {
		if set("created-by") {
			note.CreatedBy = f.createdBy
		}
		if set("history-comment") {
			note.Comment = f.historyComment
		}
		return nil
	})
}

func (f *configFlags) planPlatform(c *configChange, set func(string) bool) error {
	for flag, value := range map[string]string{"os": f.os, "arch": f.arch} {
		if set(flag) && (value == "" || strings.ContainsAny(value, "/ ")) {
			return fmt.Errorf("--%s %q: want a name, such as linux or arm64: %w", flag, value, define.ErrInvalid)
		}
	}
	for _, s := range f.osFeatures {
		if s == "" {
			return fmt.Errorf("--os-feature: the name is empty: %w", define.ErrInvalid)
		}
	}
	c.do("", func(img *image.Image) {
		p := &img.Platform
		if set("os") {
			p.OS = f.os
		}
		if set("arch") {
			if p.Architecture != f.arch {
				p.Variant = "" // of the other architecture
			}
			p.Architecture = f.arch
		}
		if set("variant") {
			p.Variant = f.variant
		}
		if set("os-version") {
			p.OSVersion = f.osVersion
		}
		for _, s := range f.osFeatures {
			switch name, remove := strings.CutSuffix(s, "-"); {
			case remove && name == "":
				p.OSFeatures = nil
			case remove:
				p.OSFeatures = slices.DeleteFunc(p.OSFeatures, func(have string) bool { return have == name })
			case !slices.Contains(p.OSFeatures, s):
				p.OSFeatures = append(p.OSFeatures, s)
			}
		}
	})
	return nil
}

func (f *configFlags) planEnv(a *app, c *configChange) error {
	for _, kv := range f.env {
		name, value, given := strings.Cut(kv, "=")
		remove := ""
		if !given {
			remove, _ = strings.CutSuffix(kv, "-")
		}
		switch {
		case strings.ContainsRune(kv, 0):
			return fmt.Errorf("--env %q: a zero byte is in it: %w", kv, define.ErrInvalid)
		case kv == "-":
			c.do("", func(img *image.Image) { img.Config.Env = nil })
		case !given && remove != kv:
			c.do("", func(img *image.Image) { unsetEnv(img, remove) })
		case name == "":
			return fmt.Errorf("--env %q: want name=value, name, name- or -: %w", kv, define.ErrInvalid)
		case !given:
			value = a.getenv(name)
			if value == "" {
				return fmt.Errorf("--env %s: the variable is not set here; want name=value: %w", name, define.ErrInvalid)
			}
			c.do("ENV "+name+"="+value, func(img *image.Image) { img.SetEnv(name, value) })
		default:
			c.steps = append(c.steps, func(img *image.Image, _ *builder.LayerNote) error {
				full := expandEnv(img, value)
				img.SetEnv(name, full)
				c.record(img, "ENV "+name+"="+full)
				return nil
			})
		}
	}
	return nil
}

// expandEnv fills in $NAME and ${NAME} from the image's variables; others are
// empty, but for PATH, which has a default.
func expandEnv(img *image.Image, value string) string {
	if !strings.ContainsRune(value, '$') {
		return value
	}
	var out strings.Builder
	for {
		before, after, found := strings.Cut(value, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name := after
		braced := strings.HasPrefix(after, "{")
		if braced {
			name = after[1:]
		}
		n := 0
		for n < len(name) && (name[n] == '_' || name[n] >= 'a' && name[n] <= 'z' || name[n] >= 'A' && name[n] <= 'Z' || n > 0 && name[n] >= '0' && name[n] <= '9') {
			n++
		}
		if n == 0 || braced && (n == len(name) || name[n] != '}') {
			out.WriteByte('$') // no variable
			value = after
			continue
		}
		v, ok := img.Env(name[:n])
		if !ok && name[:n] == "PATH" {
			v = builder.DefaultPath
		}
		out.WriteString(v)
		if value = name[n:]; braced {
			value = value[1:]
		}
	}
}

func unsetEnv(img *image.Image, name string) {
	img.Config.Env = slices.DeleteFunc(slices.Clone(img.Config.Env), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return key == name
	})
}

// planMaps is about labels and annotations.
func (f *configFlags) planMaps(c *configChange) error {
	labels := func(i *image.Image) *map[string]string { return &i.Config.Labels }
	annotations := func(i *image.Image) *map[string]string { return &i.Annotations }
	for _, m := range []struct {
		flag, instruction string
		values, unset     []string
		of                func(*image.Image) *map[string]string
	}{
		{"label", "LABEL ", f.labels, f.unsetLabels, labels},
		{"annotation", "", f.annotations, f.unsetAnnotations, annotations},
	} {
		for _, kv := range m.values {
			key, value, given := strings.Cut(kv, "=")
			name, remove := strings.CutSuffix(kv, "-")
			switch {
			case kv == "-":
				c.do("", func(img *image.Image) { *m.of(img) = nil })
			case !given && remove:
				c.do("", func(img *image.Image) { delete(*m.of(img), name) })
			case key == "":
				return fmt.Errorf("--%s %q: want key=value, key- or -: %w", m.flag, kv, define.ErrInvalid)
			default:
				history := ""
				if m.instruction != "" {
					history = m.instruction + key + "=" + value
				}
				c.do(history, func(img *image.Image) { setKey(m.of(img), key, value) })
			}
		}
		for _, key := range m.unset {
			c.do("", func(img *image.Image) { delete(*m.of(img), key) })
		}
	}
	return nil
}

func setKey[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = value
}

func (f *configFlags) planPorts(c *configChange) error {
	for _, p := range f.ports {
		if p == "-" {
			c.do("", func(img *image.Image) { img.Config.ExposedPorts = nil })
			continue
		}
		word, remove := strings.CutSuffix(p, "-")
		list, err := imagebuildah.Ports(word)
		if err != nil || len(list) == 0 {
			return fmt.Errorf("--port %q: want a port such as 8080, 53/udp or 8000-8010, one with - behind it, or -: %w", p, define.ErrInvalid)
		}
		if remove {
			// Other builders write TCP ports without the protocol.
			list = append(list, word)
			for _, one := range list {
				bare, _ := strings.CutSuffix(one, "/tcp")
				list = append(list, bare)
			}
			c.do("", func(img *image.Image) {
				for _, one := range list {
					delete(img.Config.ExposedPorts, one)
				}
			})
			continue
		}
		c.do("EXPOSE "+p, func(img *image.Image) {
			for _, one := range list {
				setKey(&img.Config.ExposedPorts, one, struct{}{})
			}
		})
	}
	return nil
}

// planLists is about volumes and triggers.
func (f *configFlags) planLists(c *configChange) error {
	for _, v := range f.volumes {
		name, remove := strings.CutSuffix(v, "-")
		switch {
		case v == "-":
			c.do("", func(img *image.Image) { img.Config.Volumes = nil })
		case v == "" || strings.ContainsRune(v, 0):
			return fmt.Errorf("--volume %q: want a directory of the image, such as /var/lib/data: %w", v, define.ErrInvalid)
		case remove:
			c.do("", func(img *image.Image) { delete(img.Config.Volumes, name) })
		default:
			c.do("VOLUME "+v, func(img *image.Image) { setKey(&img.Config.Volumes, v, struct{}{}) })
		}
	}
	for _, v := range f.onBuild {
		if v == "-" {
			c.do("", func(img *image.Image) { img.Config.OnBuild = nil })
			continue
		}
		for _, one := range splitTriggers(v) {
			if strings.TrimSpace(one) == "" {
				return fmt.Errorf("--onbuild %q: want an instruction, such as \"RUN make\": %w", v, define.ErrInvalid)
			}
			c.do("ONBUILD "+one, func(img *image.Image) { img.Config.OnBuild = append(img.Config.OnBuild, one) })
		}
	}
	return nil
}

// triggerWords begin the instructions that may be triggers.
var triggerWords = []string{"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "RUN", "SHELL",
	"STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}

// splitTriggers splits at the commas that buildah splits at, but only in
// front of another instruction: "RUN echo a,b" is one.
func splitTriggers(s string) []string {
	var list []string
	for part := range strings.SplitSeq(s, ",") {
		word, _, _ := strings.Cut(strings.TrimSpace(part), " ")
		if len(list) == 0 || slices.Contains(triggerWords, word) {
			list = append(list, part)
			continue
		}
		list[len(list)-1] += "," + part
	}
	return list
}

// planCommands is about what containers run.
func (f *configFlags) planCommands(c *configChange, set func(string) bool) error {
	if set("shell") {
		words, err := commandWords(f.shell)
		if err != nil {
			return fmt.Errorf("--shell %q: %w", f.shell, err)
		}
		c.do("SHELL "+jsonText(words), func(img *image.Image) { img.Config.Shell = words })
	}
	if set("entrypoint") {
		list, isList, err := jsonList(f.entrypoint)
		if err != nil {
			return fmt.Errorf("--entrypoint %q: %w", f.entrypoint, err)
		}
		if !isList && f.entrypoint != "" {
			list = []string{"/bin/sh", "-c", f.entrypoint}
		}
		c.do("ENTRYPOINT "+jsonText(list), func(img *image.Image) {
			img.Config.Entrypoint = list
			if len(list) == 0 || len(img.Config.Cmd) == 0 || set("cmd") {
				return
			}
			text := strings.Join(img.Config.Cmd, " ")
			if isList {
				c.warnings = append(c.warnings, fmt.Sprintf("the command %q stays, as arguments of the entry point; use --cmd '' to take it away", text))
			} else {
				c.warnings = append(c.warnings, fmt.Sprintf("the command %q stays, but the entry point in its shell form ignores it", text))
			}
		})
	}
	if set("cmd") {
		words, err := commandWords(f.cmd)
		if err != nil {
			return fmt.Errorf("--cmd %q: %w", f.cmd, err)
		}
		c.do("CMD "+jsonText(words), func(img *image.Image) { img.Config.Cmd = words })
	}
	return nil
}

func jsonText(list []string) string {
	if list == nil {
		return "[]"
	}
	b, err := json.Marshal(list)
	if err != nil {
		return fmt.Sprint(list)
	}
	return string(b)
}

func (f *configFlags) planChecked(c *configChange, set func(string) bool) error {
	if set("stop-signal") {
		if f.stopSignal != "" {
			if err := imagebuildah.CheckSignal(f.stopSignal); err != nil {
				return fmt.Errorf("--stop-signal: %w", err)
			}
		}
		c.do("STOPSIGNAL "+f.stopSignal, func(img *image.Image) { img.Config.StopSignal = f.stopSignal })
	}
	if set("user") {
		if strings.Count(f.user, ":") > 1 || strings.ContainsAny(f.user, " \t\n\x00") {
			return fmt.Errorf("--user %q: want user or user:group, names or numbers: %w", f.user, define.ErrInvalid)
		}
		c.do("USER "+f.user, func(img *image.Image) { img.Config.User = f.user })
	}
	if set("workingdir") {
		if strings.ContainsRune(f.workingDir, 0) {
			return fmt.Errorf("--workingdir %q: a zero byte is in it: %w", f.workingDir, define.ErrInvalid)
		}
		c.do("WORKDIR "+f.workingDir, func(img *image.Image) {
			dir := f.workingDir
			if dir != "" && !path.IsAbs(dir) {
				dir = path.Join("/", img.Config.WorkingDir, dir)
			}
			img.Config.WorkingDir = dir
		})
	}
	return nil
}
