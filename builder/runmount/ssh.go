package runmount

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/stratabuild/strata/define"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"
)

// Agent is an SSH agent that steps may use: the user's, or one of ours that
// holds keys.
type Agent struct {
	socket string
	keys   agent.ExtendedAgent
}

// maxKeyFile bounds a private key's file; the largest usual ones have 16 KiB.
const maxKeyFile = 256 << 10

// OpenAgent takes the path of one agent's socket, or those of key files
// without passphrases.
func OpenAgent(paths []string) (*Agent, error) {
	if len(paths) == 0 {
		return nil, fmt.Errorf("no socket and no key: %w", define.ErrInvalid)
	}
	a := &Agent{}
	var keys agent.Agent
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if info.Mode()&os.ModeSocket != 0 {
			if len(paths) > 1 {
				return nil, fmt.Errorf("%s is a socket: want one socket, or keys: %w", p, define.ErrInvalid)
			}
			a.socket = p
			return a, nil
		}
		if keys == nil {
			keys = agent.NewKeyring()
		}
		if err := addKey(keys, p, info); err != nil {
			return nil, err
		}
	}
	a.keys = keys.(agent.ExtendedAgent) // what NewKeyring gives is one
	return a, nil
}

func addKey(keys agent.Agent, path string, info os.FileInfo) error {
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return fmt.Errorf("%s is neither an agent's socket nor a private key: %w", path, define.ErrInvalid)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	key, err := ssh.ParseRawPrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return fmt.Errorf("key %s has a passphrase: give it to an agent with ssh-add, and the agent's socket here: %w", path, define.ErrUnsupported)
	}
	if err == nil {
		err = keys.Add(agent.AddedKey{PrivateKey: key, Comment: path})
	}
	if err != nil {
		return fmt.Errorf("key %s: %w: %w", path, err, define.ErrInvalid)
	}
	return nil
}

// Socket is a socket that leads to an Agent for the time of a step.
type Socket struct {
	// Tree is the socket, for a mount.
	Tree *os.File

	dir      *os.File
	name     string
	listener *net.UnixListener
	agent    *Agent
	running  sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]struct{} // nil once closed
}

// maxConnections bounds what a step can make us hold at once.
const maxConnections = 32

// Listen makes the socket name in dir, a directory of ours that stays open
// until Close. Steps may list and use the agent's keys, but neither add nor
// remove nor lock any.
func (a *Agent) Listen(dir *os.File, name string, attr FileAttr) (*Socket, error) {
	fail := func(err error) (*Socket, error) { return nil, fmt.Errorf("make the agent's socket: %w", err) }
	// By descriptor, since socket paths end at 108 bytes (unix(7)).
	path := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fail(err)
	}
	l.SetUnlinkOnClose(false)
	s := &Socket{dir: dir, name: name, listener: l, agent: a, open: map[net.Conn]struct{}{}}
	if err := attr.apply(int(dir.Fd()), name); err != nil {
		return fail(errors.Join(err, s.Close()))
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(errors.Join(err, s.Close()))
	}
	sub := os.NewFile(uintptr(fd), name)
	s.Tree, err = Tree(nil, sub)
	sub.Close()
	if err != nil {
		return fail(errors.Join(err, s.Close()))
	}
	s.running.Go(s.accept)
	return s, nil
}

// Close ends all connections and removes the socket.
func (s *Socket) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	for c := range s.open {
		c.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.running.Wait()
	if s.Tree != nil {
		err = errors.Join(err, s.Tree.Close())
	}
	return errors.Join(err, unix.Unlinkat(int(s.dir.Fd()), s.name, 0))
}

func (s *Socket) accept() {
	slots := make(chan struct{}, maxConnections)
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close() // the step holds too many
			continue
		}
		if !s.keep(conn) {
			return
		}
		s.running.Go(func() {
			s.serve(conn)
			s.drop(conn)
			<-slots
		})
	}
}

// keep notes a connection for Close; false when that has been called.
func (s *Socket) keep(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		c.Close()
		return false
	}
	s.open[c] = struct{}{}
	return true
}

func (s *Socket) drop(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	c.Close()
}

// serve answers one connection. What fails, ends it: the client sees that.
func (s *Socket) serve(conn net.Conn) {
	target := s.agent.keys
	if s.agent.socket != "" {
		up, err := net.Dial("unix", s.agent.socket)
		if err != nil {
			return
		}
		if !s.keep(up) {
			return
		}
		defer s.drop(up)
		target = agent.NewClient(up)
	}
	_ = agent.ServeAgent(readOnly{target}, conn)
}

var errReadOnly = errors.New("steps may use keys, not change them")

// readOnly refuses what changes an agent.
type readOnly struct{ agent.ExtendedAgent }

func (readOnly) Add(agent.AddedKey) error                 { return errReadOnly }
func (readOnly) Remove(ssh.PublicKey) error               { return errReadOnly }
func (readOnly) RemoveAll() error                         { return errReadOnly }
func (readOnly) Lock([]byte) error                        { return errReadOnly }
func (readOnly) Unlock([]byte) error                      { return errReadOnly }
func (readOnly) Extension(string, []byte) ([]byte, error) { return nil, agent.ErrExtensionUnsupported }
