package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// DebianMirror is where packages come from: $STRATA_TEST_MIRROR, else the
// first mirror of the host's apt configuration.
func DebianMirror() (string, error) {
	if mirror := os.Getenv("STRATA_TEST_MIRROR"); mirror != "" {
		return mirror, nil
	}
	out, err := exec.Command("sh", "-c", `{ sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources;
		sed -n 's/^deb  *\(\[[^]]*\] *\)\{0,1\}\([^ ]*\).*/\2/p' /etc/apt/sources.list; } 2>/dev/null | head -n 1`).Output()
	if err == nil && len(strings.TrimSpace(string(out))) == 0 {
		err = errors.New("it names none")
	}
	if err != nil {
		return "", fmt.Errorf("no Debian mirror in the host's apt configuration (%w): set STRATA_TEST_MIRROR", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// DebianSuite is the host's suite, or bookworm where the host is no Debian.
func DebianSuite() string {
	out, err := exec.Command("sh", "-c", `. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME"`).Output()
	if err != nil {
		return "bookworm"
	}
	return strings.TrimSpace(string(out))
}
