package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
)

func (h *healthFlags) plan(c *configChange, set func(string) bool) error {
	if set("healthcheck") && h.test == "" {
		c.do("HEALTHCHECK NONE", func(img *image.Image) { img.Config.Healthcheck = nil })
		return nil
	}
	change := image.Healthcheck{}
	var err error
	if set("healthcheck") {
		if change.Test, err = healthTest(h.test); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		flag, value string
		into        *time.Duration
	}{
		{"healthcheck-interval", h.interval, &change.Interval},
		{"healthcheck-timeout", h.timeout, &change.Timeout},
		{"healthcheck-start-period", h.startPeriod, &change.StartPeriod},
		{"healthcheck-start-interval", h.startInterval, &change.StartInterval},
	} {
		if d.value == "" {
			continue
		}
		if *d.into, err = time.ParseDuration(d.value); err != nil || *d.into < time.Millisecond && *d.into != 0 {
			return fmt.Errorf("--%s %q: want a duration of a millisecond or more, such as 30s: %w", d.flag, d.value, define.ErrInvalid)
		}
	}
	if h.retries < 0 {
		return fmt.Errorf("--healthcheck-retries %d: want 0 or more: %w", h.retries, define.ErrInvalid)
	}
	change.Retries = h.retries
	some := false
	for _, flag := range []string{"", "-interval", "-timeout", "-start-period", "-start-interval", "-retries"} {
		some = some || set("healthcheck"+flag)
	}
	if !some {
		return nil
	}
	history := ""
	if set("healthcheck") {
		history = "HEALTHCHECK " + h.test
	}
	c.do(history, func(img *image.Image) { mergeHealth(img, change, set) })
	return nil
}

// mergeHealth sets what was given; the rest stays.
func mergeHealth(img *image.Image, change image.Healthcheck, set func(string) bool) {
	now := image.Healthcheck{}
	if img.Config.Healthcheck != nil {
		now = *img.Config.Healthcheck
	}
	if set("healthcheck") {
		now.Test = change.Test
	}
	if set("healthcheck-interval") {
		now.Interval = change.Interval
	}
	if set("healthcheck-timeout") {
		now.Timeout = change.Timeout
	}
	if set("healthcheck-start-period") {
		now.StartPeriod = change.StartPeriod
	}
	if set("healthcheck-start-interval") {
		now.StartInterval = change.StartInterval
	}
	if set("healthcheck-retries") {
		now.Retries = change.Retries
	}
	img.Config.Healthcheck = &now
}

// healthTest reads NONE, "CMD words..." (or a JSON list behind CMD) and
// "CMD-SHELL line".
func healthTest(s string) ([]string, error) {
	kind, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	rest = strings.TrimSpace(rest)
	bad := fmt.Errorf("--healthcheck %q: want NONE, \"CMD command...\" or \"CMD-SHELL line\": %w", s, define.ErrInvalid)
	switch kind {
	case "NONE":
		if rest == "" {
			return []string{"NONE"}, nil
		}
	case "CMD-SHELL":
		if rest != "" {
			return []string{kind, rest}, nil
		}
	case "CMD":
		words, err := commandWords(rest)
		if err != nil {
			return nil, fmt.Errorf("--healthcheck %q: %w", s, err)
		}
		if len(words) > 0 {
			return append([]string{kind}, words...), nil
		}
	}
	return nil, bad
}
