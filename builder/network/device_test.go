package network

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/network/netlink"
)

func in(t testing.TB, ns *os.File, f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

func testPlan() plan {
	return plan{peers: []netip.Prefix{netip.MustParsePrefix("10.0.2.100/24"), netip.MustParsePrefix("fd00:2::100/64")},
		gateways: []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00:2::2")}}
}

// Networks that were closed are gone soon, though nobody waits for them: more
// follow one another than may exist at once.
func TestClosedNetworksAreCollected(t *testing.T) {
	inHost(t, func(t *testing.T) {
		newWorld(t, false)
		const most = 6
		if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte(strconv.Itoa(most)), 0); err != nil {
			t.Skipf("the limit cannot be set in a namespace: %v", err)
		}
		for i := range 5 * most {
			var n *Network
			var err error
			for range 400 {
				if n, err = Open(t.Context(), Options{Mode: Mode{Kind: Private}, Rootless: true}); err == nil || !errors.Is(err, unix.ENOSPC) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err != nil {
				t.Fatalf("the %dth: %v", i, err)
			}
			check(t, n.Close())
		}
	})
}

// A batch is answered once; what fails in the midst of it is still named.
func TestBatchNamesWhatFailed(t *testing.T) {
	inHost(t, func(t *testing.T) {
		b := &netlink.Batch{}
		b.SetLink(netlink.LoopbackIndex, 0)
		b.SetLink(77, 0)
		b.SetLink(netlink.LoopbackIndex, 1400)
		err := do(b)
		if !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "switch device 77 on") {
			t.Errorf("%v", err)
		}
		b = &netlink.Batch{}
		b.SetLink(netlink.LoopbackIndex, 0)
		check(t, do(b))
	})
}
