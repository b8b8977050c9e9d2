package ui

import (
	"encoding/json"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/stratabuild/strata/define"
)

// jsonLines writes each event as one line of JSON. Keys only grow. Beside the
// fields of define.Event a line may have:
//
//	data         the output of a step, when it is UTF-8
//	dataBase64   the output of a step, when it is not
//	error        the text of Event.Err
//	exitCode     of kind "error", the last line of a failed command
type jsonLines struct {
	mu  sync.Mutex
	out io.Writer
}

type jsonEvent struct {
	define.Event
	Data       string `json:"data,omitempty"`
	DataBase64 []byte `json:"dataBase64,omitempty"`
	Error      string `json:"error,omitempty"`
	ExitCode   int    `json:"exitCode,omitempty"`
}

func (j *jsonLines) Event(e define.Event) {
	line := jsonEvent{Event: e}
	switch {
	case len(e.Data) == 0:
	case utf8.Valid(e.Data):
		line.Data = string(e.Data)
	default:
		line.DataBase64 = e.Data
	}
	if e.Err != nil {
		line.Error = define.RedactURLs(e.Err.Error())
	}
	line.Text = define.RedactURLs(e.Text)
	if e.Step != nil {
		step := *e.Step
		step.Text = define.RedactURLs(step.Text)
		line.Step = &step
	}
	j.write(line)
}

func (j *jsonLines) write(line jsonEvent) {
	b, err := json.Marshal(line)
	if err != nil {
		return // cannot be: every field has a JSON form
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = j.out.Write(append(b, '\n'))
}

func (j *jsonLines) Log(line string) {
	j.Event(define.Event{Kind: define.EventNote, Time: time.Now(), Text: line})
}

func (j *jsonLines) Fail(f Failure) {
	j.write(jsonEvent{
		Event: define.Event{
			Kind: "error", Time: time.Now(), Text: define.RedactURLs(f.Text), File: f.File, Line: f.Line,
		},
		ExitCode: f.Code,
	})
}

func (j *jsonLines) Close() {}
