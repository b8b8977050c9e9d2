package builder

import (
	"testing"
)

func TestLoopbackProxies(t *testing.T) {
	for value, want := range map[string]string{
		"http://127.0.0.1:3128": "127.0.0.1:3128", "127.0.0.1:3128": "127.0.0.1:3128", "http://127.0.0.53:81/": "127.0.0.53:81",
		"http://localhost:1":   "127.0.0.1:1, [::1]:1",
		"http://user:pw@[::1]": "[::1]:80", "https://[::ffff:127.0.0.2]": "127.0.0.2:443",
		"socks5://proxy.localhost": "127.0.0.1:1080, [::1]:1080",
		"http://0.0.0.0:1":         "127.0.0.1:1", "http://[::]:2": "[::1]:2",
		"": "", "http://proxy.example:3128": "", "http://192.0.2.1": "", "::::": "", "proxy:80": "", "http://127.0.0.1:0": "",
		"http://127.0.0.1:99999": "", "http://localhost.example": "",
	} {
		name, list := loopbackProxies(func(name string) string {
			if name == "https_proxy" {
				return value
			}
			return ""
		})
		if got := addresses(list); got != want || (name == "https_proxy") != (want != "") {
			t.Errorf("%q: %q of %q, want %q", value, got, name, want)
		}
	}
	if _, list := loopbackProxies(func(name string) string { return map[string]string{"no_proxy": "127.0.0.1"}[name] }); list != nil {
		t.Errorf("no_proxy was taken for a proxy: %v", list)
	}
}

// What an image or a Containerfile says must not open the host's ports; that
// they stay closed is said.
func TestUnreachedProxies(t *testing.T) {
	t.Setenv("http_proxy", "http://127.0.0.1:3128")
	e := &Engine{}
	for _, c := range []struct {
		env     []string
		proxies bool
		want    string
	}{
		{[]string{"http_proxy=http://127.0.0.1:3128"}, true, ""},
		{[]string{"http_proxy=http://127.0.0.1:3128"}, false, "http_proxy"},
		{[]string{"http_proxy=http://127.0.0.1:6379"}, true, "http_proxy"},
		{[]string{"HTTPS_PROXY=http://localhost:1"}, true, "HTTPS_PROXY"},
		{[]string{"HTTPS_PROXY=http://proxy.example:1", "no_proxy=127.0.0.1"}, true, ""},
	} {
		if got := e.unreached(c.env, c.proxies); got != c.want {
			t.Errorf("%v, %v: %q, want %q", c.env, c.proxies, got, c.want)
		}
	}
}
