package cli

import (
	"encoding/csv"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// privateFlags are what steps may see but images never hold.
type privateFlags struct{ secrets, ssh []string }

func (p *privateFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&p.secrets, "secret", nil, "let steps mount a secret, as `id=NAME[,src=FILE|,env=VARIABLE]`; the id alone means the variable or file of that name")
	fs.StringArrayVar(&p.ssh, "ssh", nil, "let steps use an SSH agent, as `id[=SOCKET|=KEY,...]`; default alone means $SSH_AUTH_SOCK")
}

func (p *privateFlags) options(a *app, o *imagebuildah.Options) error {
	for _, text := range p.secrets {
		s, err := parseSecret(text, a.getenv)
		if err != nil {
			// The value itself may be what is secret: it is not repeated.
			return fmt.Errorf("--secret: %w", err)
		}
		o.Secrets = append(o.Secrets, s)
	}
	for _, text := range p.ssh {
		s, err := parseSSH(text, a.getenv)
		if err != nil {
			return fmt.Errorf("--ssh %q: %w", text, err)
		}
		o.SSH = append(o.SSH, s)
	}
	return nil
}

// parseSecret reads id=NAME[,src=FILE][,env=VARIABLE][,type=file|env]. With
// type=env, src is the name of a variable.
func parseSecret(text string, getenv func(string) string) (imagebuildah.Secret, error) {
	var s imagebuildah.Secret
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return s, fmt.Errorf("want id=NAME,src=FILE or id=NAME,env=VARIABLE: %w", define.ErrInvalid)
	}
	var file, env, kind string
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok || value == "" {
			return s, fmt.Errorf("a field has no value; want id=NAME,src=FILE or id=NAME,env=VARIABLE: %w", define.ErrInvalid)
		}
		switch strings.ToLower(key) {
		case "id":
			s.ID = value
		case "src", "source":
			file = value
		case "env":
			env = value
		case "type":
			if kind = value; kind != "file" && kind != "env" {
				return s, fmt.Errorf("type %q: want file or env: %w", value, define.ErrInvalid)
			}
		default:
			return s, fmt.Errorf("a field has an unknown name; want id, src, env or type: %w", define.ErrInvalid)
		}
	}
	switch {
	case s.ID == "":
		return s, fmt.Errorf("the id is missing; want id=NAME,src=FILE or id=NAME,env=VARIABLE: %w", define.ErrInvalid)
	case file != "" && env != "" || kind == "file" && env != "":
		return s, fmt.Errorf("id %q: want a file or a variable, not both: %w", s.ID, define.ErrInvalid)
	case kind == "env" && env == "" && file != "":
		file, env = "", file
	case kind == "env" && env == "", kind == "" && file == "" && env == "" && getenv(s.ID) != "":
		env = s.ID
	case file == "" && env == "":
		file = s.ID
	}
	if env != "" {
		v := getenv(env)
		if v == "" {
			return s, fmt.Errorf("id %q: the variable %s is not set: %w", s.ID, env, define.ErrNotFound)
		}
		s.Value = []byte(v)
		return s, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return s, fmt.Errorf("id %q: %w", s.ID, err)
	}
	if info.IsDir() || info.Mode().IsRegular() && info.Size() > imagebuildah.MaxSecret {
		return s, fmt.Errorf("id %q: %s: want a file of at most %d bytes: %w", s.ID, file, imagebuildah.MaxSecret, define.ErrInvalid)
	}
	s.File = file
	return s, nil
}

// parseSSH reads default|id[=socket|key[,key...]].
func parseSSH(text string, getenv func(string) string) (imagebuildah.SSH, error) {
	id, paths, found := strings.Cut(text, "=")
	s := imagebuildah.SSH{ID: id}
	if id == "" || found && paths == "" {
		return s, fmt.Errorf("want default, or id=SOCKET, or id=KEY,KEY: %w", define.ErrInvalid)
	}
	if !found {
		if paths = getenv("SSH_AUTH_SOCK"); paths == "" {
			return s, fmt.Errorf("no agent: SSH_AUTH_SOCK is not set; start ssh-agent, or write %s=KEY: %w", id, define.ErrNotFound)
		}
		s.Paths = []string{paths}
	} else {
		s.Paths = strings.Split(paths, ",")
	}
	for _, p := range s.Paths {
		info, err := os.Stat(p)
		if err != nil {
			return s, err
		}
		if info.Mode()&os.ModeSocket != 0 && len(s.Paths) > 1 {
			return s, fmt.Errorf("%s is a socket; want one socket, or keys: %w", p, define.ErrInvalid)
		}
	}
	return s, nil
}
