package ocirun

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
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

// lastError reads JSON lines {"level": ..., "msg": ...}. Lines of another form
// count as messages when there is nothing better.
func lastError(log []byte) string {
	last, any := "", ""
	for line := range bytes.Lines(log) {
		var entry struct{ Level, Msg string }
		switch err := json.Unmarshal(line, &entry); {
		case err != nil:
			any = string(line)
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

// notStarted says why the runtime could not start the step: an ExitError when
// it is about the program, as a shell would say it.
func notStarted(runtime, complaint string) error {
	text := strings.ToLower(complaint)
	if strings.Contains(text, `exec: "`) || strings.Contains(text, "executable") || strings.Contains(text, "exec container process") {
		for _, c := range []struct {
			code  int
			words []string
		}{
			{126, []string{"permission denied", "operation not permitted", "exec format error", "is a directory"}},
			{127, []string{"no such file or directory", "not found", "not a directory"}},
		} {
			for _, w := range c.words {
				if strings.Contains(text, w) {
					return &isolation.ExitError{Code: c.code, Reason: complaint}
				}
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
	if code == 1 || code > 128+64 {
		if c := w.complaint(); c != "" {
			return notStarted(r.name(), c)
		}
		if wrongFormat(s) {
			return &isolation.ExitError{Code: 126, Reason: fmt.Sprintf("%s: exec format error", s.Spec.Process.Args[0])}
		}
	}
	return &isolation.ExitError{Code: code}
}

// name is the runtime's, for messages.
func (r *oci) name() string { return filepath.Base(r.path) }
