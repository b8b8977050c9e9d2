package store

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// priorDriver chooses between the drivers that have state below root, when
// nothing is configured; "" leaves the choice to the library.
//
// Older podmans use vfs for users where strata's library would take overlay
// (Debian 12's 4.3 does), and each makes its state beside the other's: the
// library then refuses to open the store at all, or opens one in which podman
// sees no image. So the driver that holds images is taken, overlay first; and
// vfs when it is the only one with state, because it is the one that podman
// goes on using.
func priorDriver(root string) string {
	overlay, vfs := hasDriver(root, "overlay"), hasDriver(root, "vfs")
	switch {
	case !vfs:
		return ""
	case !overlay:
		return "vfs"
	case !hasImages(root, "overlay") && hasImages(root, "vfs"):
		return "vfs"
	}
	return "overlay"
}

func hasDriver(root, driver string) bool {
	fi, err := os.Stat(filepath.Join(root, driver))
	return err == nil && fi.IsDir()
}

// hasImages reports whether the driver's list of images has an entry. What
// cannot be read counts as none: opening the store will say why.
func hasImages(root, driver string) bool {
	b, err := os.ReadFile(filepath.Join(root, driver+"-images", "images.json"))
	if err != nil {
		return false
	}
	var images []struct{}
	return json.Unmarshal(b, &images) == nil && len(images) > 0
}
