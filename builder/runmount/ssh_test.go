package runmount

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stratabuild/strata/define"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// writeKey makes a private key's file.
func writeKey(t *testing.T, path, passphrase string) ssh.PublicKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func listen(t *testing.T, a *Agent) (client agent.ExtendedAgent, s *Socket) {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	if s, err = a.Listen(dir, "sock", FileAttr{Mode: 0o640}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir.Name()); err != nil || len(left) > 0 {
			t.Errorf("left %v (%v)", left, err)
		}
	})
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d", s.Tree.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return agent.NewClient(conn), s
}

// TestAgent uses keys through an agent of ours, and through that as if it
// were the user's.
func TestAgent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	key := writeKey(t, path, "")
	ours, err := OpenAgent([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	client, socket := listen(t, ours)
	check := func(client agent.ExtendedAgent) {
		t.Helper()
		list, err := client.List()
		if err != nil || len(list) != 1 || string(list[0].Blob) != string(key.Marshal()) {
			t.Fatalf("%v (%v)", list, err)
		}
		signature, err := client.Sign(key, []byte("data"))
		if err != nil || key.Verify([]byte("data"), signature) != nil {
			t.Errorf("signature: %v", err)
		}
		for name, err := range map[string]error{
			"remove all": client.RemoveAll(), "remove": client.Remove(key), "lock": client.Lock([]byte("x")),
		} {
			if err == nil {
				t.Errorf("%s was allowed", name)
			}
		}
	}
	check(client)
	user, err := OpenAgent([]string{fmt.Sprintf("/proc/self/fd/%d", socket.Tree.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	client, _ = listen(t, user)
	check(client)
}

func TestOpenAgentRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeKey(t, filepath.Join(dir, "locked"), "passphrase")
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"locked": define.ErrUnsupported, "text": define.ErrInvalid, "missing": os.ErrNotExist, ".": define.ErrInvalid,
	} {
		if _, err := OpenAgent([]string{filepath.Join(dir, name)}); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := OpenAgent(nil); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("none: %v", err)
	}
}
