package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stratabuild/strata/define"
)

// flagError says what is wrong with a flag, in one line that names the flag
// and the form that is wanted, or the flag that was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		return unknownFlag(cmd, unknown)
	}
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		return fmt.Errorf("--%s %q: %w", bad.GetFlag().Name, bad.GetValue(), reason(err))
	}
	var missing *pflag.ValueRequiredError
	if errors.As(err, &missing) {
		return fmt.Errorf("--%s needs a value: %w", missing.GetFlag().Name, define.ErrInvalid)
	}
	return err
}

func unknownFlag(cmd *cobra.Command, e *pflag.NotExistError) error {
	name := e.GetSpecifiedName()
	if short := e.GetSpecifiedShortnames(); short != "" {
		// The first letter that does not exist; name holds it.
		if m, ok := missingShort(strings.TrimSpace(commandWord(cmd)), name); ok {
			return m.refusal("-" + name)
		}
		return fmt.Errorf("unknown flag -%s; see strata %s--help: %w", name, commandWord(cmd), define.ErrInvalid)
	}
	if m, ok := missingFlag(strings.TrimSpace(commandWord(cmd)), name); ok {
		return m.refusal("--" + name)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	hint := didYouMean(name, names, "--")
	if hint == "" {
		hint = "; see strata " + commandWord(cmd) + "--help"
	}
	return fmt.Errorf("unknown flag --%s%s: %w", name, hint, define.ErrInvalid)
}

// commandWord is the command without the program's name, and a space: "push ",
// "manifest push "; "" for the program itself.
func commandWord(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return ""
	}
	return commandWord(cmd.Parent()) + cmd.Name() + " "
}

// reason words what Go's and pflag's parsers say about a value.
func reason(err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err
	}
	var number *strconv.NumError
	switch typ := bad.GetFlag().Value.Type(); {
	case typ == "bool":
		return fmt.Errorf("want true or false: %w", define.ErrInvalid)
	case errors.As(err, &number) && errors.Is(number.Err, strconv.ErrRange):
		return fmt.Errorf("the number is out of range: %w", define.ErrInvalid)
	case errors.As(err, &number), strings.HasPrefix(typ, "int"), strings.HasPrefix(typ, "uint"):
		return fmt.Errorf("want a whole number: %w", define.ErrInvalid)
	}
	return fmt.Errorf("%w: %w", bad.Unwrap(), define.ErrInvalid)
}

// wantArgs checks the number of arguments; what names them in messages.
func wantArgs(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return fmt.Errorf("%s needs %s; see strata %s--help: %w", cmd.Name(), what, commandWord(cmd), define.ErrInvalid)
		case most >= 0 && len(args) > most:
			if most == 0 {
				return fmt.Errorf("%s takes no arguments, got %q: %w", cmd.Name(), args, define.ErrInvalid)
			}
			return fmt.Errorf("%s takes %s, got %d arguments (%q): %w", cmd.Name(), what, len(args), args, define.ErrInvalid)
		}
		for _, a := range args {
			if a == "" && least > 0 {
				return fmt.Errorf("%s: an argument is empty: %w", cmd.Name(), define.ErrInvalid)
			}
		}
		return nil
	}
}

// unknownCommand is the root's answer to a word that is no command.
func unknownCommand(root *cobra.Command, word string) error {
	if strings.HasPrefix(word, "-") {
		return fmt.Errorf("unknown flag %s; see strata --help: %w", word, define.ErrInvalid)
	}
	if m, missing := missingCommand(word); missing && !root.HasParent() {
		return fmt.Errorf("the command %s is not in this version of strata; %s: %w", word, m.Instead, define.ErrUnsupported)
	}
	names := commandNames()
	if root.HasParent() {
		names = nil
		for _, c := range root.Commands() {
			names = append(append(names, c.Name()), c.Aliases...)
		}
	}
	hint := didYouMean(word, names, "")
	if hint == "" {
		hint = "; see strata " + commandWord(root) + "--help"
	}
	return fmt.Errorf("unknown command %q%s: %w", commandWord(root)+word, hint, define.ErrInvalid)
}
