package cli

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
)

// splitLog is the display of a log file that writes what happens for one of
// several platforms to a file of the platform's: FILE_os_arch (--logsplit).
type splitLog struct {
	ui.Display        // of the file itself
	path       string // of the file itself
	mode       ui.Mode

	mu     sync.Mutex
	parts  map[string]*logPart
	closed bool
	err    error
}

type logPart struct {
	ui.Display
	file *os.File
}

// Event implements define.Listener.
func (l *splitLog) Event(e define.Event) {
	if e.Step == nil || e.Step.Platform == "" {
		l.Display.Event(e)
		return
	}
	if part := l.part(e.Step.Platform); part != nil {
		part.Event(e)
	}
}

// part is the display of a platform; nil when its file cannot be made.
func (l *splitLog) part(platform string) ui.Display {
	// A step that runs on one platform for another's sake is of the other.
	if _, after, ok := strings.Cut(platform, "->"); ok {
		platform = after
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.parts[platform]; ok {
		return p
	}
	if l.closed || l.err != nil {
		return nil
	}
	f, err := os.OpenFile(l.path+"_"+strings.ReplaceAll(platform, "/", "_"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		l.err = fmt.Errorf("--logsplit: %w", err)
		return nil
	}
	p := &logPart{Display: ui.New(l.mode, ui.Options{Out: f}), file: f}
	if l.parts == nil {
		l.parts = map[string]*logPart{}
	}
	l.parts[platform] = p
	return p
}

// Close implements ui.Display.
func (l *splitLog) Close() {
	l.Display.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	for _, p := range l.parts {
		p.Close()
		if err := p.file.Close(); err != nil && l.err == nil {
			l.err = fmt.Errorf("--logsplit: %w", err)
		}
	}
}
