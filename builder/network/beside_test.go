package network

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tables that docker and podman make, as nft -f reads them. Docker's drops
// what it does not know; netavark's accepts.
var othersTables = map[string]string{
	"docker": `table ip nat {
	chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade; }
}
table ip filter {
	chain DOCKER-USER { counter return; }
	chain FORWARD { type filter hook forward priority filter; policy drop; counter jump DOCKER-USER; oifname "docker0" ct state related,established accept; iifname "docker0" accept; }
}`,
	"podman": `table inet netavark {
	chain FORWARD { type filter hook forward priority filter; policy accept; ip daddr 10.88.0.0/16 ct state established,related accept; ip saddr 10.88.0.0/16 accept; }
	chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; ip saddr 10.88.0.0/16 masquerade; }
}`,
	"a firewall of another kind": `table inet mine {
	chain incoming { type filter hook input priority filter; policy drop; ct state established,related accept; iifname "lo" accept; }
	chain passing { type filter hook forward priority filter; policy drop; }
}`,
}

func ruleset(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	// Packets of others' chains are counted whoever sends them.
	var lines []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		for i := 1; i < len(f); i++ {
			if f[i-1] == "packets" || f[i-1] == "bytes" {
				f[i] = "N"
			}
		}
		lines = append(lines, strings.Join(f, " "))
	}
	return strings.Join(lines, "\n")
}

// Beside others' tables the outside is reached, whichever way is taken, and
// they are afterwards what they were.
func TestBesideOthersTables(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip(err)
	}
	inHost(t, func(t *testing.T) {
		w := newWorld(t, false)
		forward(t, "1")
		at := netip.AddrPortFrom(w.four, uint16(w.port)).String()
		for name, text := range othersTables {
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("nft: %v: %s", err, out)
			}
			before := ruleset(t)
			n := open(t, "private", false)
			if want := map[bool]string{true: "user-mode", false: "bridge"}[strings.Contains(text, "forward priority filter; policy drop")]; n.Kind() != want {
				t.Errorf("%s: %s, want %s", name, n.Kind(), want)
			}
			talk(t, n, at, []byte("beside "+name))
			check(t, n.Close())
			// The kernel takes the table away in the background.
			after := ruleset(t)
			for i := 0; after != before && i < 200; i++ {
				time.Sleep(20 * time.Millisecond)
				// A collection that another process had begun may have seen
				// the table in use. The next close of a socket begins one.
				if pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0); err == nil {
					check(t, errors.Join(unix.Close(pair[0]), unix.Close(pair[1])))
				}
				after = ruleset(t)
			}
			if after != before {
				t.Errorf("%s: the rules were\n%s\nand are\n%s", name, before, after)
			}
			if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
				t.Fatalf("nft: %v: %s", err, out)
			}
		}
	})
}
