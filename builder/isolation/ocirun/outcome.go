package ocirun

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/stratabuild/strata/builder/isolation"
)

// maxLog bounds what is read of a runtime's log.
const maxLog = 1 << 20

// complaint returns the last error of the runtime's log, on one line.
func (w *work) complaint() string {
	f, err := os.Open(w.path("log"))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLog))
	if err != nil {
		return ""
	}
	return lastError(b)
}

// keepLog appends what the runtime has logged to a file of the user's.
func (w *work) keepLog(name string) error {
	if name == "" {
		return nil
	}
	b, err := os.ReadFile(w.path("log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("log of the OCI runtime: %w", err)
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// lastError reads JSON lines {"level": ..., "msg": ...}. Lines of another form
// count as messages when there is nothing better.
func lastError(log []byte) string {
	last, any := "", ""
	for line := range bytes.Lines(log) {
		var entry struct{ Level, Msg string }
		switch err := json.Unmarshal(line, &entry); {
		case err != nil:
			switch level, msg := textEntry(string(line)); level {
			case "":
				any = string(line)
			case "error", "fatal":
				last = msg
			}
		case entry.Level == "error" || entry.Level == "fatal":
			last = entry.Msg
		case entry.Msg != "" && entry.Level == "":
			any = entry.Msg
		}
	}
	if last == "" {
		last = any
	}
	return strings.Join(strings.Fields(last), " ")
}

// textEntry reads time="..." level=error msg="...", as runc logs without JSON;
// level is "" when line is something else.
func textEntry(line string) (level, msg string) {
	_, rest, _ := strings.Cut(line, " level=")
	level, rest, _ = strings.Cut(rest, " msg=")
	msg, _, _ = strings.Cut(rest, " ")
	if quoted, err := strconv.QuotedPrefix(rest); err == nil {
		msg, _ = strconv.Unquote(quoted)
	}
	return level, msg
}

// notStarted says why the runtime could not start the step: an ExitError when
// it is about the program.
func notStarted(runtime, program, complaint string) error {
	text := strings.ToLower(complaint)
	if strings.Contains(text, `exec: "`) || strings.Contains(text, "executable") || strings.Contains(text, "exec container process") {
		for _, c := range []struct {
			words string
			errno syscall.Errno
		}{
			{"permission denied", syscall.EACCES}, {"operation not permitted", syscall.EPERM}, {"exec format error", syscall.ENOEXEC}, {"is a directory", syscall.EISDIR},
			{"no such file or directory", syscall.ENOENT}, {"not found", syscall.ENOENT}, {"not a directory", syscall.ENOTDIR},
		} {
			if strings.Contains(text, c.words) {
				e := isolation.ExecError(program, c.errno)
				e.Reason += " (" + runtime + ": " + complaint + ")"
				return e
			}
		}
	}
	return fmt.Errorf("OCI runtime %s: %s", runtime, complaint)
}

// outcome translates how the runtime ended, whose status is the step's. What
// it says in its log decides whether there was a step: the log is out of the
// step's reach.
func (r *oci) outcome(s *isolation.Step, w *work, st *os.ProcessState) error {
	code := st.ExitCode()
	if code == 0 {
		return nil
	}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Errorf("OCI runtime %s: killed by signal %d", r.name(), ws.Signal())
	}
	if _, err := os.Stat(w.path("pid")); len(r.o.Flags) > 0 && errors.Is(err, fs.ErrNotExist) && w.complaint() == "" {
		return fmt.Errorf("OCI runtime %s: ended with status %d before the step began; are its flags right (%s)?", r.name(), code, strings.Join(r.o.Flags, " "))
	}
	if code == 1 || code > 128+64 {
		if c := w.complaint(); c != "" {
			return notStarted(r.name(), s.Spec.Process.Args[0], c)
		}
		if wrongFormat(s) {
			return isolation.ExecError(s.Spec.Process.Args[0], syscall.ENOEXEC)
		}
	}
	return &isolation.ExitError{Code: code}
}

// name is the runtime's, for messages.
func (r *oci) name() string { return filepath.Base(r.path) }
