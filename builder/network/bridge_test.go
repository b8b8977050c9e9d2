package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stratabuild/strata/builder/network/netlink"
	"github.com/stratabuild/strata/define"
)

// forward switches forwarding on or off in this process's network namespace,
// which has begun as the machine's first one is.
func forward(t *testing.T, value string) {
	t.Helper()
	for _, f := range []string{"ipv4", "ipv6"} {
		if err := os.WriteFile("/proc/sys/net/"+f+"/conf/all/forwarding", []byte(value), 0); err != nil {
			t.Skipf("forwarding cannot be set in a namespace: %v", err)
		}
	}
}

// ours are the devices and tables of strata's in this process's namespace.
func ours(t *testing.T) (list []string) {
	t.Helper()
	devices, err := net.Interfaces()
	check(t, err)
	for _, d := range devices {
		if strings.HasPrefix(d.Name, "strata") {
			list = append(list, "device "+d.Name)
		}
	}
	s, err := netlink.Dial(netlink.Netfilter)
	check(t, err)
	defer s.Close()
	tables, err := s.Tables()
	check(t, err)
	for _, name := range tables {
		if strings.HasPrefix(name, "strata") {
			list = append(list, "table "+name)
		}
	}
	return list
}

func TestBridge(t *testing.T) {
	inHost(t, func(t *testing.T) {
		w := newWorld(t, true)
		useResolver(t)
		forward(t, "1")
		// Last of all: connections keep the namespaces that they were made in.
		t.Cleanup(func() { nothingLeft(t) })
		first := open(t, "bridge", false)
		n := open(t, "private", false)
		if n.Kind() != "bridge" {
			t.Fatalf("kind %q, want bridge where the host forwards", n.Kind())
		}
		if n.Gateway() == first.Gateway() {
			t.Errorf("two networks have the gateway %s", n.Gateway())
		}
		for _, n := range []*Network{first, n} {
			for _, a := range []netip.Addr{w.four, w.six} {
				at := netip.AddrPortFrom(a, uint16(w.port)).String()
				who := talk(t, n, at, []byte("hello"))
				if who != hostFour.Addr().String() && who != hostSix.Addr().String() {
					t.Errorf("%s sees %s, want the host", at, who)
				}
				echoes(t, n, at, 1000)
			}
			asks(t, n)
		}
		if list := ours(t); len(list) != 4 {
			t.Errorf("on the host: %q, want two devices and two tables", list)
		}
	})
}

// A host whose way out takes smaller packets than usual, or larger ones.
func TestBridgeMTU(t *testing.T) {
	inHost(t, func(t *testing.T) {
		newWorld(t, true)
		forward(t, "1")
		for mtu, want := range map[uint32]int{1400: 1400, 9000: 9000, 1500: 1500} {
			b := &netlink.Batch{}
			b.SetLink(5, mtu)
			check(t, do(b))
			n := open(t, "bridge", false)
			check(t, in(t, n.Namespace(), func() error {
				d, err := net.InterfaceByName(deviceName)
				if err == nil && d.MTU != want {
					t.Errorf("the way out has an MTU of %d, the namespace of %d", mtu, d.MTU)
				}
				return err
			}))
		}
	})
}

func TestBridgeNeedsForwarding(t *testing.T) {
	inHost(t, func(t *testing.T) {
		newWorld(t, false)
		forward(t, "0")
		_, err := Open(t.Context(), Options{Mode: Mode{Kind: Bridge}})
		if !errors.Is(err, define.ErrUnsupported) || !strings.Contains(err.Error(), "ip_forward") {
			t.Errorf("%v", err)
		}
		_, err = Open(t.Context(), Options{Mode: Mode{Kind: Bridge}, Rootless: true})
		if !errors.Is(err, define.ErrUnsupported) {
			t.Errorf("rootless: %v", err)
		}
		if n := open(t, "private", false); n.Kind() != "user-mode" {
			t.Errorf("private is %q where the host does not forward", n.Kind())
		}
		b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		if check(t, err); strings.TrimSpace(string(b)) != "0" {
			t.Error("forwarding was switched on")
		}
	})
}

// As docker and firewalls have it: what no rule of theirs accepts is dropped.
func TestPrivateAvoidsFirewalls(t *testing.T) {
	inHost(t, func(t *testing.T) {
		w := newWorld(t, false)
		forward(t, "1")
		s, err := netlink.Dial(netlink.Netfilter)
		check(t, err)
		defer s.Close()
		check(t, s.DropForwarded("docker-like"))
		if what := obstacle(); !strings.Contains(what, "docker-like") {
			t.Errorf("obstacle %q", what)
		}
		n := open(t, "private", false)
		if n.Kind() != "user-mode" {
			t.Errorf("kind %q", n.Kind())
		}
		talk(t, n, netip.AddrPortFrom(w.four, uint16(w.port)).String(), []byte("hello"))
		var note string
		m, err := Open(t.Context(), Options{Mode: Mode{Kind: Bridge}, Listener: define.ListenerFunc(func(e define.Event) { note = e.Text })})
		check(t, err)
		defer m.Close()
		if !strings.Contains(note, "docker-like") {
			t.Errorf("note %q", note)
		}
	})
}

// killedVariable makes the test's child the one that opens and is killed.
const killedVariable = "STRATA_TEST_NETWORK_KILLED"

func TestBridgeLeavesNothingWhenKilled(t *testing.T) {
	inHost(t, func(t *testing.T) {
		forward(t, "1")
		if os.Getenv(killedVariable) != "" {
			open(t, "bridge", false)
			os.Stdout.WriteString("open\n")
			select {}
		}
		newWorld(t, false)
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), killedVariable+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		check(t, err)
		check(t, cmd.Start())
		buf := make([]byte, 5)
		_, err = out.Read(buf)
		check(t, err)
		if list := ours(t); len(list) != 2 {
			t.Errorf("before: %q, want a device and a table", list)
		}
		check(t, cmd.Process.Kill())
		_ = cmd.Wait()
		nothingLeft(t)
	})
}

// nothingLeft waits for the kernel to have taken devices and tables away,
// which it does in the background.
func nothingLeft(t *testing.T) {
	t.Helper()
	var list []string
	for range 200 {
		if list = ours(t); len(list) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("left on the host: %q", list)
}

func TestBridgePlan(t *testing.T) {
	taken := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12")}
	seen := map[netip.Addr]bool{}
	for range 50 {
		p, err := bridgePlan(taken, true)
		check(t, err)
		subnet := p.peers[0].Masked()
		if !subnet.Contains(p.gateways[0]) || p.gateways[0] == p.peers[0].Addr() || subnet.Bits() != 30 {
			t.Fatalf("%+v", p)
		}
		if slices.ContainsFunc(taken, subnet.Overlaps) || !p.gateways[0].IsPrivate() || !p.gateways[1].IsPrivate() {
			t.Errorf("%+v: not free, or not private", p)
		}
		seen[p.gateways[0]] = true
	}
	if len(seen) < 40 {
		t.Errorf("%d different plans of 50", len(seen))
	}
	if _, err := bridgePlan([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1")}, false); !errors.Is(err, define.ErrUnsupported) {
		t.Errorf("no room: %v", err)
	}
}
