package builder

import "testing"

func TestLoopbackProxy(t *testing.T) {
	for value, want := range map[string]bool{
		"http://127.0.0.1:3128": true, "127.0.0.1:3128": true, "http://localhost:1": true, "http://user:pw@[::1]:8080/": true,
		"socks5://proxy.localhost": true, "http://0.0.0.0:1": true,
		"": false, "http://proxy.example:3128": false, "http://192.0.2.1": false, "::::": false, "proxy:80": false,
	} {
		got := loopbackProxy(func(name string) string {
			if name == "https_proxy" {
				return value
			}
			return ""
		})
		if (got == "https_proxy") != want {
			t.Errorf("%q: %q", value, got)
		}
	}
	if got := loopbackProxy(func(name string) string { return map[string]string{"no_proxy": "127.0.0.1"}[name] }); got != "" {
		t.Errorf("no_proxy was taken for a proxy: %q", got)
	}
}
