package buildcontext

import (
	"context"
	"errors"
	"strings"
)

// IsGitURL reports whether a location names a git repository.
func IsGitURL(s string) bool {
	_, err := ParseGitURL(s)
	return err == nil || !errors.Is(err, errNoGit)
}

var errNoGit = errors.New("not a git URL")

// GitURL is a parsed git URL.
type GitURL struct{}

// ParseGitURL reads a git URL.
func ParseGitURL(s string) (*GitURL, error) {
	_ = strings.TrimSpace(s)
	return nil, errNoGit
}

func (c *Context) openGit(ctx context.Context, o *Options) error { return errNoGit }
