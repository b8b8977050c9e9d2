package transport

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/types"
)

const (
	// reportEvery is how often one blob's progress is told.
	reportEvery = 100 * time.Millisecond
	// silenceNote and silenceLimit bound how long a registry may say nothing
	// while it owes us something. A registry that has all bytes of a blob may
	// take its time to store them, and so may our store: there the user is
	// told, and nothing is cut off.
	silenceNote  = 30 * time.Second
	silenceLimit = 2 * time.Minute
)

// errSilence ends a transfer in which nothing moves any more.
var errSilence = errors.New("no data for a long time")

// watch turns the progress of containers/image into events and notices when
// there is none.
type watch struct {
	listener define.Listener
	action   string // Text of the events
	remote   string // the registry's host; "" when none takes part
	cancel   context.CancelCauseFunc
	// After note of silence the user is told, after limit the transfer ends.
	note, limit time.Duration

	blobs map[string]*blob
	only  string // the digest of the only blob that is told of; "": all are
}

type blob struct {
	at, total int64
	told      time.Time
	done      bool
}

// run consumes events until stop is closed. The channel is not closed: its
// senders are not ours.
func (w *watch) run(events <-chan types.ProgressProperties, stop <-chan struct{}) {
	w.blobs = map[string]*blob{}
	tick := time.NewTicker(w.note / 30)
	defer tick.Stop()
	last, noted := time.Now(), false
	for {
		select {
		case e := <-events:
			last, noted = time.Now(), false
			w.event(e, last)
		case now := <-tick.C:
			silent := now.Sub(last)
			if w.remote == "" || silent < w.note {
				continue
			}
			if !noted {
				noted = true
				define.Emit(w.listener, define.Event{Kind: define.EventNote, Text: fmt.Sprintf("%s: waiting for %s for %d s", w.action, w.remote, int(silent.Seconds()))})
			}
			if silent > w.limit && w.owed() {
				w.cancel(fmt.Errorf("%s: %w", w.remote, errSilence))
				noted, last = false, now
			}
		case <-stop:
			for {
				select {
				case e := <-events:
					w.event(e, time.Now())
				default:
					return
				}
			}
		}
	}
}

// owed reports whether bytes are to come: nothing has begun yet, or a blob
// has begun and is not complete.
func (w *watch) owed() bool {
	for _, b := range w.blobs {
		if !b.done && b.total > 0 && b.at < b.total {
			return true
		}
	}
	return len(w.blobs) == 0
}

func (w *watch) event(e types.ProgressProperties, now time.Time) {
	key := string(e.Artifact.Digest)
	b := w.blobs[key]
	if b == nil {
		b = &blob{total: max(0, e.Artifact.Size)}
		w.blobs[key] = b
	}
	switch e.Event {
	case types.ProgressEventNewArtifact:
		b.done = false
	case types.ProgressEventRead:
		b.at = int64(e.Offset)
		if now.Sub(b.told) < reportEvery {
			return
		}
	case types.ProgressEventDone:
		b.at, b.done = max(b.total, int64(e.Offset)), true
	case types.ProgressEventSkipped:
		b.at, b.done = b.total, true
	}
	b.told = now
	if w.only != "" && w.only != key {
		return
	}
	define.Emit(w.listener, define.Event{
		Kind: define.EventTransfer, Time: now, Text: w.action, Object: shortDigest(key),
		Current: b.at, Total: b.total, Done: b.done,
	})
}

func shortDigest(d string) string {
	if len(d) > 19 && d[:7] == "sha256:" {
		return d[7:19]
	}
	return d
}
