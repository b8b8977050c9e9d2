package transport

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/types"
)

// chooseAuthFile sets the file that credentials are read from where it is not
// containers/image's own choice.
func (c *Client) chooseAuthFile(sys *types.SystemContext) error {
	if file := c.o.Authfile; file != "" {
		// containers/image takes a missing file for an empty one, and the
		// registry's "unauthorized" would hide the typing mistake.
		if _, err := os.Stat(file); err != nil && c.o.Creds == "" {
			return fmt.Errorf("credentials file %s: %v: %w", file, cause(err), define.ErrNotFound)
		}
		sys.AuthFilePath = file
		return nil
	}
	chooseDefaultAuthFile(sys)
	return nil
}

func chooseDefaultAuthFile(sys *types.SystemContext) {
	if file := os.Getenv("REGISTRY_AUTH_FILE"); file != "" {
		sys.AuthFilePath = file
		return
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		file := filepath.Join(dir, "config.json")
		if _, err := os.Stat(file); err == nil {
			sys.DockerCompatAuthFilePath = file
		}
	}
}
