package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/docker/distribution/registry/api/errcode"
	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/docker"
)

const (
	defaultRetries = 3
	defaultDelay   = time.Second
	maxDelay       = time.Minute
)

// retry runs f again after failures that time may cure. Within one attempt
// containers/image itself resumes interrupted downloads and waits where the
// registry answers 429 with Retry-After.
func (c *Client) retry(ctx context.Context, what string, f func() error) error {
	retries, delay := c.o.Retry, c.o.RetryDelay
	if retries == 0 {
		retries = defaultRetries
	}
	if delay <= 0 {
		delay = defaultDelay
	}
	for attempt := 1; ; attempt++ {
		err := f()
		if err == nil || attempt > retries || ctx.Err() != nil || !transient(err) {
			return err
		}
		define.Emit(c.listener, define.Event{Kind: define.EventNote, Text: fmt.Sprintf("%s failed, trying again in %v (%d of %d): %s", what, delay, attempt, retries, brief(oneLine(err.Error())))})
		t := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
		delay = min(2*delay, maxDelay)
	}
}

// transient reports whether a later attempt may succeed: the network or a
// server's own trouble, as opposed to an answer.
func transient(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var status docker.UnexpectedHTTPStatusError
	if errors.As(err, &status) {
		return status.StatusCode >= 500 && status.StatusCode != http.StatusNotImplemented
	}
	var code errcode.Error
	if errors.As(err, &code) {
		return code.Code == errcode.ErrorCodeUnavailable || code.Code == errcode.ErrorCodeTooManyRequests
	}
	if errors.Is(err, docker.ErrTooManyRequests) || errors.Is(err, errSilence) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return !dns.IsNotFound
	}
	for _, errno := range []error{syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT, syscall.ENETUNREACH, syscall.EHOSTUNREACH} {
		if errors.Is(err, errno) {
			return true
		}
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, io.EOF)
}
