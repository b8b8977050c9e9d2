package transport

import (
	"errors"
	"testing"
)

// TestBrief: of containers/image's errors the steps on the way are left out,
// which name the image again, and nothing of a cause is.
func TestBrief(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"x":    "x",
		"a: b": "a: b",
		"initializing source docker://h:1/x:1: reading manifest 1 in h:1/x: manifest unknown":                                                                          "manifest unknown",
		"initializing source docker://h:1/x:1: fetching manifest 1 in h:1/x: unauthorized":                                                                             "unauthorized",
		`initializing source docker://x:1: fetching manifest 1 in x: pinging container registry h:1: Get "https://h:1/v2/": dial tcp h:1: connect: connection refused`: "dial tcp h:1: connect: connection refused",
		// The cause does not say whose it is.
		`initializing source docker://x:1: pinging container registry h:1: Get "https://h:1/v2/": tls: bad certificate`:           "registry h:1: tls: bad certificate",
		`pinging container registry h: invalid status code from registry 500 (Internal Server Error)`:                             "registry h: invalid status code from registry 500 (Internal Server Error)",
		"trying to reuse blob sha256:ab at destination: checking whether a blob sha256:ab exists in h/x: authentication required": "authentication required",
		`opening file "/x.tar": open /x.tar: no such file or directory`:                                                           "open /x.tar: no such file or directory",
		`getting username and password: reading JSON file "/f": unmarshaling JSON at "/f": invalid character`:                     `unmarshaling JSON at "/f": invalid character`,
		"initializing source docker://x:1":                                            "initializing source docker://x:1",
		"writing blob: uploading layer chunked: received unexpected HTTP status: 500": "writing blob: uploading layer chunked: received unexpected HTTP status: 500",
	} {
		if got := brief(text); got != want {
			t.Errorf("%s\n\tbecame %s\n\twant   %s", text, got, want)
		}
	}
	cause := errors.New("reading manifest 1 in h/x: denied for secret")
	if err := plain(cause, "secret"); err.Error() != "denied for ***" || !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}
