package registrytest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"time"
)

// Fault is one way to misbehave. It strikes requests whose method and path
// match; the first injected fault that matches counts.
type Fault struct {
	Method string // "" is any
	Path   string // regular expression, "" is any
	Skip   int    // requests to leave alone first
	Times  int    // requests to strike; 0 is all

	// Delay comes before everything else.
	Delay time.Duration
	// Status answers with an error, Header and Body.
	Status int
	Header http.Header
	Body   string
	// Endless answers 200 with Body again and again, without an end.
	Endless bool
	// Edit replaces the body of the true answer; the length is right.
	Edit func(body []byte) []byte
	// Cut ends the connection after that many bytes of the true answer's
	// body; CutAt0 after its header.
	Cut    int64
	CutAt0 bool
	// Rate slows the body down, in bytes per second.
	Rate int
	// Drop closes the connection without an answer.
	Drop bool

	path *regexp.Regexp
}

// Inject adds a fault; it panics when Path is no regular expression.
func (r *Registry) Inject(f Fault) {
	f.path = regexp.MustCompile(f.Path)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, &f)
}

// Behave removes all faults.
func (r *Registry) Behave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = nil
}

func (r *Registry) nextFault(q *http.Request) *Fault {
	for i, f := range r.faults {
		if f.Method != "" && f.Method != q.Method || !f.path.MatchString(q.URL.Path) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times == 1 {
			r.faults = append(r.faults[:i:i], r.faults[i+1:]...)
		} else if f.Times > 1 {
			f.Times--
		}
		return f
	}
	return nil
}

func (f *Fault) serve(w http.ResponseWriter, q *http.Request, route http.HandlerFunc) {
	if f.Delay > 0 {
		select {
		case <-q.Context().Done():
			return
		case <-time.After(f.Delay):
		}
	}
	if f.Drop {
		panic(http.ErrAbortHandler)
	}
	for k, v := range f.Header {
		w.Header()[k] = v
	}
	if f.Status != 0 {
		w.WriteHeader(f.Status)
		io.WriteString(w, f.Body) //nolint:errcheck // the client has gone
		return
	}
	if f.Endless {
		for {
			if _, err := io.WriteString(w, f.Body); err != nil {
				return
			}
		}
	}
	f.spoil(w, q, route)
}

// spoil gives the true answer, but not quite.
func (f *Fault) spoil(w http.ResponseWriter, q *http.Request, route http.HandlerFunc) {
	rec := httptest.NewRecorder()
	route(rec, q)
	body := rec.Body.Bytes()
	if f.Edit != nil {
		body = f.Edit(bytes.Clone(body))
		rec.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	for k, v := range rec.Header() {
		if _, ours := f.Header[k]; !ours {
			w.Header()[k] = v
		}
	}
	w.WriteHeader(rec.Code)
	cut := f.CutAt0 || f.Cut > 0 && f.Cut < int64(len(body))
	if cut {
		body = body[:f.Cut]
	}
	if f.Rate > 0 {
		drip(w, q, body, f.Rate)
	} else {
		w.Write(body) //nolint:errcheck // the client has gone
	}
	if cut {
		http.NewResponseController(w).Flush() //nolint:errcheck // as above
		panic(http.ErrAbortHandler)
	}
}

func drip(w http.ResponseWriter, q *http.Request, body []byte, rate int) {
	const steps = 10 // a second
	for len(body) > 0 {
		n := min(len(body), max(1, rate/steps))
		if _, err := w.Write(body[:n]); err != nil {
			return
		}
		http.NewResponseController(w).Flush() //nolint:errcheck // the next write tells
		body = body[n:]
		select {
		case <-q.Context().Done():
			return
		case <-time.After(time.Second / steps):
		}
	}
}
