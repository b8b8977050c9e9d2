package network

import (
	"bufio"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]Mode{
		"":                                   {},
		"default":                            {},
		"host":                               {Kind: Host},
		"none":                               {Kind: None},
		"private":                            {Kind: Private},
		"private:allow_host_loopback=true":   {Kind: Private, HostLoopback: true},
		"private:allow_host_loopback=false":  {Kind: Private},
		"bridge":                             {Kind: Bridge},
		"ns:/run/netns/a":                    {Kind: Path, Path: "/run/netns/a"},
		"container:42":                       {Kind: Process, PID: 42},
		"pasta":                              {Kind: Pasta},
		"pasta:--mtu,1500":                   {Kind: Pasta, Args: []string{"--mtu", "1500"}},
		"slirp4netns:allow_host_loopback=on": {Kind: "bad"},
		"slirp4netns:allow_host_loopback=1":  {Kind: Slirp4netns, HostLoopback: true},
		"default:x":                          {Kind: "bad"},
		":x":                                 {Kind: "bad"},
		"host:x":                             {Kind: "bad"},
		"bridge:allow_host_loopback=true":    {Kind: "bad"},
		"private:":                           {Kind: "bad"},
		"ns:":                                {Kind: "bad"},
		"ns:a":                               {Kind: "bad"},
		"container:":                         {Kind: "bad"},
		"container:0":                        {Kind: "bad"},
		"container:web":                      {Kind: "bad"},
		"podman1":                            {Kind: "bad"},
	} {
		got, err := Parse(in)
		if want.Kind == "bad" {
			if !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), "want") && !strings.Contains(err.Error(), "takes") {
				t.Errorf("%q: %v", in, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

func TestReadResolvers(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, want string }{
		"usual":   {"# x\nnameserver 192.0.2.1\nsearch a\nnameserver fe80::1%lo\n", "192.0.2.1:53 [fe80::1%lo]:53"},
		"bad":     {"nameserver\nnameserver x\nnameserver 192.0.2.1 # y\n", "192.0.2.1:53"},
		"nothing": {"search a\n", "127.0.0.1:53"},
		"many":    {strings.Repeat("nameserver 192.0.2.1\n", 9), "192.0.2.1:53 192.0.2.1:53 192.0.2.1:53"},
	} {
		file := filepath.Join(dir, name)
		check(t, os.WriteFile(file, []byte(c.text), 0o644))
		var got []string
		for _, a := range readResolvers(file) {
			got = append(got, a.String())
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %q, want %q", name, text, c.want)
		}
	}
	if got := readResolvers(filepath.Join(dir, "missing")); len(got) != 1 {
		t.Errorf("missing file: %v", got)
	}
}

func TestReadRoutes(t *testing.T) {
	const table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" +
		"eth0\tzz\t\n"
	got := readRoutes(bufio.NewScanner(strings.NewReader(table)))
	if want := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v (on a machine that stores the least byte first)", got, want)
	}
}
