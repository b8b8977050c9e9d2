package transport_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/builder/transport/registrytest"
	"github.com/stratabuild/strata/define"
)

const secret = "s3cr3t&word"

func TestCredentials(t *testing.T) {
	t.Parallel()
	for _, bearer := range []bool{false, true} {
		reg, id := pushed(t, registrytest.Options{Username: "me", Password: secret, Bearer: bearer}, imagetest.Spec{Layers: twoLayers})
		auth := filepath.Join(t.TempDir(), "auth.json")
		o := plainHTTP
		o.Authfile = auth
		st := imagetest.Store(t)
		pull := func(o transport.Options) error {
			c, _ := client(t, st, o)
			l, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.HostPlatform(), define.PullAlways)
			if err == nil && l.ID != id {
				t.Errorf("pulled %+v", l)
			}
			if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("the error tells too much: %q", err)
			}
			return err
		}
		if err := pull(o); !errors.Is(err, define.ErrNotFound) || !strings.Contains(err.Error(), auth) {
			t.Errorf("an auth file that is not there: %v", err)
		}
		if err := pull(plainHTTP); err == nil || !strings.Contains(err.Error(), "strata login "+reg.Host()) {
			t.Errorf("without credentials: %v", err)
		}
		wrong := plainHTTP
		wrong.Creds = "me:" + secret + "x"
		if err := pull(wrong); err == nil {
			t.Error("wrong credentials were accepted")
		}
		right := plainHTTP
		right.Creds = "me:" + secret
		if err := pull(right); err != nil {
			t.Errorf("--creds: %v", err)
		}

		c, _ := client(t, st, o)
		login := transport.LoginOptions{Registry: reg.Host(), Username: "me", Password: "wr0ng" + secret}
		if err := c.Login(t.Context(), login); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("login with a wrong password: %v", err)
		}
		if _, err := os.Stat(auth); err == nil {
			t.Error("a refused login made the auth file")
		}
		login.Password, login.Registry = secret, "https://"+reg.Host()+"/"
		if err := c.Login(t.Context(), login); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(auth); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("the auth file: %v %v", info, err)
		}
		if err := pull(o); err != nil {
			t.Errorf("after login: %v", err)
		}
		var out bytes.Buffer
		if err := c.Login(t.Context(), transport.LoginOptions{Registry: reg.Host(), GetLogin: true, Out: &out}); err != nil || out.String() != "me\n" {
			t.Errorf("--get-login: %q %v", out.String(), err)
		}
		if err := c.Login(t.Context(), transport.LoginOptions{Registry: reg.Host()}); err != nil {
			t.Errorf("checking the stored credentials: %v", err)
		}
		if err := c.Logout(t.Context(), reg.Host(), false); err != nil {
			t.Error(err)
		}
		if err := c.Logout(t.Context(), reg.Host(), false); !errors.Is(err, define.ErrNotFound) {
			t.Errorf("second logout: %v", err)
		}
		if err := c.Login(t.Context(), transport.LoginOptions{Registry: reg.Host(), GetLogin: true, Out: &out}); !errors.Is(err, define.ErrNotFound) {
			t.Errorf("--get-login after logout: %v", err)
		}
		if err := c.Login(t.Context(), login); err != nil {
			t.Error(err)
		}
		if err := c.Logout(t.Context(), "", true); err != nil {
			t.Error(err)
		}
	}
}

func TestLoginRefusesNames(t *testing.T) {
	t.Parallel()
	c := transport.New(nil, transport.Options{}, nil)
	for _, r := range []string{"", "https://", "a b", "u@h", "/x"} {
		if err := c.Login(t.Context(), transport.LoginOptions{Registry: r, Username: "u", Password: "p"}); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("%q: %v", r, err)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	spec := imagetest.Spec{Layers: twoLayers}
	yes := true
	for name, tc := range map[string]struct {
		o      registrytest.Options
		trust  bool
		verify *bool
		want   string
	}{
		"trusted":            {registrytest.Options{TLS: true}, true, nil, ""},
		"trusted and asked":  {registrytest.Options{TLS: true}, true, &yes, ""},
		"unknown":            {registrytest.Options{TLS: true}, false, nil, "--tls-verify=false"},
		"not verified":       {registrytest.Options{TLS: true}, false, no(), ""},
		"other name":         {registrytest.Options{TLS: true, CertificateFor: []string{"example.com"}}, true, nil, "x509"},
		"expired":            {registrytest.Options{TLS: true, Expired: true}, true, nil, "clock"},
		"plain HTTP":         {registrytest.Options{}, false, nil, "plain HTTP"},
		"plain HTTP allowed": {registrytest.Options{}, false, no(), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, _ := pushed(t, tc.o, spec)
			o := transport.Options{Retry: -1, TLSVerify: tc.verify}
			if tc.trust {
				o.CertDir = t.TempDir()
				if err := reg.WriteCA(o.CertDir); err != nil {
					t.Fatal(err)
				}
			}
			c, _ := client(t, imagetest.Store(t), o)
			_, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.HostPlatform(), define.PullMissing)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// TestCredentialsStayHome: a registry that is asked with credentials points
// elsewhere. The other side must not see them.
func TestCredentialsStayHome(t *testing.T) {
	t.Parallel()
	other := registrytest.Start(t, registrytest.Options{})
	// Another name of this machine, as the sides must differ in more than the
	// port (RFC 6265, section 8.5: ports do not isolate).
	elsewhere := strings.Replace(other.URL(), "127.0.0.1", "localhost", 1)
	reg, _ := pushed(t, registrytest.Options{Username: "me", Password: secret}, imagetest.Spec{Layers: twoLayers})
	reg.Inject(registrytest.Fault{Path: "/blobs/", Status: 307, Header: http.Header{"Location": {elsewhere + "/v2/app/blobs/x"}}})
	o := plainHTTP
	o.Creds, o.Retry = "me:"+secret, -1
	c, _ := client(t, imagetest.Store(t), o)
	if _, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.HostPlatform(), define.PullMissing); err == nil {
		t.Error("no error")
	}
	asked := other.Requests()
	if len(asked) == 0 {
		t.Error("the redirect was not followed: the test shows nothing")
	}
	for _, q := range asked {
		if len(q.Header["Authorization"]) > 0 {
			t.Errorf("%s %s came with credentials", q.Method, q.Path)
		}
	}
}

func TestLinkLocalIsRefused(t *testing.T) {
	t.Parallel()
	reg, _ := pushed(t, registrytest.Options{Username: "me", Password: secret, Bearer: true, Realm: "http://169.254.169.254/latest"}, imagetest.Spec{Layers: twoLayers})
	o := plainHTTP
	o.Creds, o.Retry = "me:"+secret, -1
	c, _ := client(t, imagetest.Store(t), o)
	if _, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.HostPlatform(), define.PullMissing); err == nil || !strings.Contains(err.Error(), "link-local") {
		t.Errorf("error %v", err)
	}
}

// TestNoDowngrade: a registry on HTTPS names a token server on plain HTTP.
func TestNoDowngrade(t *testing.T) {
	t.Parallel()
	other := registrytest.Start(t, registrytest.Options{})
	reg, _ := pushed(t, registrytest.Options{TLS: true, Username: "me", Password: secret, Bearer: true, Realm: other.URL() + "/token"}, imagetest.Spec{Layers: twoLayers})
	o := transport.Options{CertDir: t.TempDir(), Creds: "me:" + secret, Retry: -1}
	if err := reg.WriteCA(o.CertDir); err != nil {
		t.Fatal(err)
	}
	c, _ := client(t, imagetest.Store(t), o)
	if _, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.HostPlatform(), define.PullMissing); err == nil || !strings.Contains(err.Error(), "from HTTPS to http:") {
		t.Errorf("error %v", err)
	}
	if n := len(other.Requests()); n != 0 {
		t.Errorf("the other side got %d requests", n)
	}
}
