package tests

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdServe serves a directory by HTTP on a free port of 127.0.0.1 until the
// script ends; VARIABLE gets HOST:PORT. With -auth every request needs these
// credentials.
func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	auth := ""
	if len(args) > 2 && args[0] == "-auth" {
		auth, args = args[1], args[2:]
	}
	if neg || len(args) != 2 {
		ts.Fatalf("usage: serve [-auth USER:PASSWORD] DIR VARIABLE")
	}
	files := http.FileServer(http.Dir(ts.MkAbs(args[0])))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if auth != "" && user+":"+password != auth {
			w.Header().Set("WWW-Authenticate", `Basic realm="files"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[1], strings.TrimPrefix(s.URL, "http://"))
}

// cmdGitDaemon serves the repositories of a directory by git's own protocol
// until the script ends; VARIABLE gets HOST:PORT.
func cmdGitDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: gitdaemon DIR VARIABLE")
	}
	path, err := exec.Command("git", "--exec-path").Output()
	ts.Check(err)
	// The daemon takes no socket that is open already: a port that was free
	// just now, and another one where somebody else took it meanwhile.
	for range 10 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		at := l.Addr().String()
		_, port, _ := net.SplitHostPort(at)
		l.Close()
		cmd := exec.Command(strings.TrimSpace(string(path))+"/git-daemon", "--base-path=.", "--export-all", "--listen=127.0.0.1", "--port="+port)
		cmd.Dir = ts.MkAbs(args[0])
		ts.Check(cmd.Start())
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait() // it ends by our signal, or at once when the port is taken
			close(ended)
		}()
		if answers(at, ended) {
			ts.Defer(func() {
				_ = cmd.Process.Kill() // it may have ended
				<-ended
			})
			ts.Setenv(args[1], at)
			return
		}
	}
	ts.Fatalf("git-daemon does not start")
}

// answers waits until somebody listens at an address, or the server ended.
func answers(at string, ended <-chan struct{}) bool {
	for {
		if c, err := net.Dial("tcp", at); err == nil {
			c.Close()
			select {
			case <-ended: // it was somebody else's port
				return false
			case <-time.After(20 * time.Millisecond):
				return true
			}
		}
		select {
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}
