package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
)

// timeFlags fix the times in an image.
type timeFlags struct{ timestamp, epoch string }

func (t *timeFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&t.timestamp, "timestamp", "", "set all times in the image and its layers to this number of `seconds` since 1970")
	fs.StringVar(&t.epoch, "source-date-epoch", "", "set the image's times to this number of `seconds` since 1970, and lower later times of files to it")
}

func (t *timeFlags) options() (timestamp, epoch *time.Time, err error) {
	if t.timestamp != "" && t.epoch != "" {
		return nil, nil, fmt.Errorf("--timestamp and --source-date-epoch: want one or the other: %w", define.ErrInvalid)
	}
	if timestamp, err = parseSeconds("timestamp", t.timestamp); err != nil {
		return nil, nil, err
	}
	epoch, err = parseSeconds("source-date-epoch", t.epoch)
	return timestamp, epoch, err
}

// lastSecond ends the year 9999: later times have no RFC 3339 form, which
// the configs of images need.
const lastSecond = 253402300799

func parseSeconds(flag, s string) (*time.Time, error) {
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > lastSecond {
		return nil, fmt.Errorf("--%s %q: want seconds since 1970, such as 1735689600: %w", flag, s, define.ErrInvalid)
	}
	t := time.Unix(n, 0).UTC()
	return &t, nil
}
