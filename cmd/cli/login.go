package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
	"golang.org/x/term"
)

type loginFlags struct {
	registry                registryFlags
	username, password      string
	passwordStdin, getLogin bool
	verbose                 bool
}

func newLoginCommand(a *app) *cobra.Command {
	var flags loginFlags
	cmd := &cobra.Command{
		Use:   "login [flags] registry",
		Short: "Log in to a registry",
		Long: `Verify credentials with a registry and store them where podman, buildah and
skopeo find them too. Without --username, credentials that are stored are
verified; on a terminal what is missing is asked for. A password given by
--password can be seen by other users of the machine: prefer --password-stdin.`,
		Example: `  strata login registry.example
  strata login -u ci --password-stdin registry.example < token
  strata login --get-login registry.example`,
		Args: wantArgs(1, 1, "one registry"),
		RunE: func(cmd *cobra.Command, args []string) error { return runLogin(a, cmd, &flags, args[0]) },
	}
	flags.registry.addAuthfile(cmd)
	flags.registry.addCompatAuthfile(cmd)
	flags.registry.addTLS(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&flags.getLogin, "get-login", false, "print the name of the user who is logged in")
	fs.StringVarP(&flags.password, "password", "p", "", "the `password` or token; other users can see it")
	fs.BoolVar(&flags.passwordStdin, "password-stdin", false, "read the password from standard input")
	fs.StringVarP(&flags.username, "username", "u", "", "the user's `name`")
	fs.BoolVarP(&flags.verbose, "verbose", "v", false, "print where the credentials were stored")
	return cmd
}

func runLogin(a *app, cmd *cobra.Command, flags *loginFlags, registry string) error {
	options, err := flags.registry.options(cmd, false)
	if err != nil {
		return err
	}
	o := transport.LoginOptions{
		Registry: registry, Username: flags.username, Password: flags.password, GetLogin: flags.getLogin, Out: a.out,
	}
	if flags.verbose {
		o.Stored = func(where string) { a.println("Used: " + where) }
	}
	if err := flags.check(cmd); err != nil {
		return err
	}
	// Credentials need no store.
	client := transport.New(nil, options, nil)
	if o.GetLogin {
		return client.Login(cmd.Context(), o)
	}
	if o.Username == "" && isTerminal(a.std.In) {
		err := client.Login(cmd.Context(), o)
		if !errors.Is(err, define.ErrNotFound) {
			return a.loggedIn(err)
		}
		if o.Username, err = a.ask("Username: "); err != nil {
			return err
		}
	}
	if o.Username != "" && o.Password == "" {
		if o.Password, err = a.password(flags.passwordStdin); err != nil {
			return err
		}
	}
	return a.loggedIn(client.Login(cmd.Context(), o))
}

func (f *loginFlags) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed("password")
	switch {
	case f.passwordStdin && given:
		return fmt.Errorf("--password and --password-stdin: want one or the other: %w", define.ErrInvalid)
	case (f.passwordStdin || given) && f.username == "":
		return fmt.Errorf("a password needs --username: %w", define.ErrInvalid)
	case f.getLogin && (f.username != "" || f.passwordStdin || given):
		return fmt.Errorf("--get-login goes with neither a user name nor a password: %w", define.ErrInvalid)
	}
	return nil
}

func (a *app) loggedIn(err error) error {
	if err == nil {
		a.println("Login Succeeded!")
	}
	return err
}

// maxSecret bounds what is read as a password.
const maxSecret = 64 << 10

// password reads the password from standard input: a pipe, or a terminal
// that then does not echo. Without either there is nobody to ask.
func (a *app) password(fromStdin bool) (string, error) {
	switch {
	case fromStdin:
		b, err := io.ReadAll(io.LimitReader(a.std.In, maxSecret))
		if err != nil {
			return "", fmt.Errorf("--password-stdin: %w", err)
		}
		secret := strings.TrimRight(string(b), "\r\n")
		if secret == "" {
			return "", fmt.Errorf("--password-stdin: standard input is empty: %w", define.ErrInvalid)
		}
		return secret, nil
	case !isTerminal(a.std.In):
		return "", fmt.Errorf("no password and no terminal to ask for one: use --password-stdin: %w", define.ErrInvalid)
	}
	_, _ = fmt.Fprint(a.std.Err, "Password: ")
	b, err := term.ReadPassword(int(a.std.In.Fd()))
	_, _ = fmt.Fprintln(a.std.Err)
	return string(b), err
}

func (a *app) ask(prompt string) (string, error) {
	_, _ = fmt.Fprint(a.std.Err, prompt)
	line, err := bufio.NewReader(io.LimitReader(a.std.In, maxSecret)).ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("no user name was given: %w", errors.Join(define.ErrInvalid, err))
	}
	return line, nil
}
