package imagebuildah

import (
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/stratabuild/strata/define"
)

// epochName is an argument that every build file may declare: as in BuildKit
// and buildah it says, and is set to, the latest time that the image may show.
const epochName = "SOURCE_DATE_EPOCH"

// checkEpoch makes the build argument and the option agree; the option wins.
func checkEpoch(o *Options) error {
	if o.SourceDateEpoch == nil {
		if t := o.BuildArgs[epochName]; t != "" {
			epoch, err := parseEpoch("build argument", t)
			o.SourceDateEpoch = epoch
			return err
		}
		return nil
	}
	o.BuildArgs = maps.Clone(o.BuildArgs)
	if o.BuildArgs == nil {
		o.BuildArgs = map[string]string{}
	}
	o.BuildArgs[epochName] = strconv.FormatInt(o.SourceDateEpoch.Unix(), 10)
	return nil
}

func parseEpoch(what, text string) (*time.Time, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%s %s=%q: want seconds since 1970: %w", what, epochName, text, define.ErrInvalid)
	}
	epoch := time.Unix(n, 0).UTC()
	return &epoch, nil
}

// epochArg takes what an ARG before the first FROM says when nothing else does.
func (b *build) epochArg() error {
	if b.opts.SourceDateEpoch != nil {
		return nil
	}
	text, ok := b.global.Lookup(epochName)
	if !ok || text == "" {
		return nil
	}
	epoch, err := parseEpoch("ARG", text)
	b.opts.SourceDateEpoch = epoch
	return err
}
