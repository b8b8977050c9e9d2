package imagebuildah

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// configHistory records an instruction that changes only the configuration.
func (s *stage) configHistory(text string) { s.addHistory(text, nil, true) }

func (s *stage) env(cmd *instructions.EnvCommand) error {
	text := make([]string, 0, len(cmd.Env))
	for _, kv := range cmd.Env {
		if s.scope.HasEnv(kv.Key) {
			s.c.Image.SetEnv(kv.Key, kv.Value)
		} else {
			// The list is not searched for what is not there.
			s.c.Image.Config.Env = append(s.c.Image.Config.Env, kv.Key+"="+kv.Value)
		}
		s.scope.SetEnv(kv.Key, kv.Value)
		text = append(text, kv.String())
	}
	s.configHistory("ENV " + strings.Join(text, " "))
	return nil
}

func (s *stage) arg(in *containerfile.Instruction, cmd *instructions.ArgCommand) error {
	step := s.nextStep(in)
	text := make([]string, 0, len(cmd.Args))
	for _, kv := range cmd.Args {
		kv, err := s.scope.Declare(kv)
		if err != nil {
			return err
		}
		if kv.Value == nil {
			text = append(text, kv.Key)
		} else {
			text = append(text, kv.String())
		}
	}
	s.configHistory("ARG " + strings.Join(text, " "))
	s.emit(define.Event{Kind: define.EventStepStart, Step: step})
	s.emit(define.Event{Kind: define.EventStepDone, Step: step})
	return nil
}

func (s *stage) label(cmd *instructions.LabelCommand) error {
	text := make([]string, 0, len(cmd.Labels))
	for _, kv := range cmd.Labels {
		s.setLabel(kv.Key, kv.Value)
		text = append(text, kv.String())
	}
	s.configHistory("LABEL " + strings.Join(text, " "))
	return nil
}

func (s *stage) setLabel(key, value string) {
	if s.c.Image.Config.Labels == nil {
		s.c.Image.Config.Labels = map[string]string{}
	}
	s.c.Image.Config.Labels[key] = value
}

func (s *stage) user(cmd *instructions.UserCommand) error {
	s.c.Image.Config.User = cmd.User
	s.configHistory("USER " + cmd.User)
	return nil
}

func (s *stage) volume(cmd *instructions.VolumeCommand) error {
	if s.c.Image.Config.Volumes == nil {
		s.c.Image.Config.Volumes = map[string]struct{}{}
	}
	for _, v := range cmd.Volumes {
		if v == "" {
			return fmt.Errorf("a volume's path is empty: %w", define.ErrInvalid)
		}
		s.c.Image.Config.Volumes[v] = struct{}{}
	}
	s.configHistory("VOLUME [" + strings.Join(cmd.Volumes, " ") + "]")
	return nil
}

func (s *stage) expose(cmd *instructions.ExposeCommand) error {
	if s.c.Image.Config.ExposedPorts == nil {
		s.c.Image.Config.ExposedPorts = map[string]struct{}{}
	}
	ports := make([]string, 0, len(cmd.Ports))
	for _, word := range cmd.Ports {
		list, err := containerfile.Ports(word)
		if err != nil {
			return err
		}
		if ports = append(ports, list...); len(ports) > containerfile.MaxPorts {
			return fmt.Errorf("more than %d ports: %w", containerfile.MaxPorts, define.ErrInvalid)
		}
	}
	sort.Strings(ports)
	for _, p := range ports {
		s.c.Image.Config.ExposedPorts[p] = struct{}{}
	}
	s.configHistory("EXPOSE " + strings.Join(cmd.Ports, " "))
	return nil
}

// commandLine is what CMD, ENTRYPOINT and RUN execute: the list as written,
// or the shell's arguments with the line behind them.
func (s *stage) commandLine(c instructions.ShellDependantCmdLine) []string {
	if !c.PrependShell {
		return append([]string(nil), c.CmdLine...)
	}
	return append(append([]string(nil), s.shellArgs()...), strings.Join(c.CmdLine, " "))
}

func (s *stage) shellArgs() []string {
	if len(s.c.Image.Config.Shell) > 0 {
		return s.c.Image.Config.Shell
	}
	return []string{"/bin/sh", "-c"}
}

func (s *stage) entrypoint(cmd *instructions.EntrypointCommand) error {
	s.c.Image.Config.Entrypoint = s.commandLine(cmd.ShellDependantCmdLine)
	// A CMD of the base image was meant for the base image's entry point.
	if !s.cmdSet {
		s.c.Image.Config.Cmd = nil
	}
	s.configHistory("ENTRYPOINT " + listText(s.c.Image.Config.Entrypoint))
	return nil
}

func (s *stage) cmd(cmd *instructions.CmdCommand) error {
	s.c.Image.Config.Cmd = s.commandLine(cmd.ShellDependantCmdLine)
	s.cmdSet = true
	s.configHistory("CMD " + listText(s.c.Image.Config.Cmd))
	return nil
}

// listText writes a list as the exec form does.
func listText(list []string) string {
	if list == nil {
		list = []string{}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return fmt.Sprint(list)
	}
	return string(text)
}

func (s *stage) healthcheck(cmd *instructions.HealthCheckCommand) error {
	h := cmd.Health
	s.c.Image.Config.Healthcheck = &image.Healthcheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout,
		StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries}
	s.configHistory("HEALTHCHECK " + listText(h.Test))
	return nil
}

func (s *stage) shell(cmd *instructions.ShellCommand) error {
	s.c.Image.Config.Shell = append([]string(nil), cmd.Shell...)
	s.configHistory("SHELL " + listText(cmd.Shell))
	return nil
}

func (s *stage) stopSignal(cmd *instructions.StopSignalCommand) error {
	if err := containerfile.CheckSignal(cmd.Signal); err != nil {
		return err
	}
	s.c.Image.Config.StopSignal = cmd.Signal
	s.configHistory("STOPSIGNAL " + cmd.Signal)
	return nil
}

func (s *stage) onbuild(cmd *instructions.OnbuildCommand) error {
	s.c.Image.Config.OnBuild = append(s.c.Image.Config.OnBuild, cmd.Expression)
	s.configHistory("ONBUILD " + cmd.Expression)
	return nil
}

func (s *stage) maintainer(cmd *instructions.MaintainerCommand) error {
	s.c.Image.Author = cmd.Maintainer
	s.configHistory("MAINTAINER " + cmd.Maintainer)
	return nil
}
