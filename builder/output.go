package builder

import (
	"errors"
	"os"
	"sync"

	"github.com/stratabuild/strata/define"
)

// output carries what a step prints to the listener. The step writes into
// pipes; two goroutines read them with one buffer each, so that memory does
// not grow with what is printed.
type output struct {
	stdout, stderr *os.File // the step's ends
	readers        []*os.File
	wg             sync.WaitGroup
}

const outputBuffer = 32 << 10

func newOutput(l define.Listener, step *define.Step) (*output, error) {
	o := &output{}
	for stream, end := range map[int]**os.File{1: &o.stdout, 2: &o.stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, errors.Join(err, o.close())
		}
		*end = w
		o.readers = append(o.readers, r)
		o.wg.Go(func() { forward(l, step, stream, r) })
	}
	return o, nil
}

func forward(l define.Listener, step *define.Step, stream int, r *os.File) {
	buf := make([]byte, outputBuffer)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			define.Emit(l, define.Event{Kind: define.EventStepOutput, Step: step, Stream: stream, Data: buf[:n]})
		}
		if err != nil {
			return
		}
	}
}

// close ends the step's side and waits until all that was printed has been
// reported.
func (o *output) close() error {
	var err error
	for _, w := range []*os.File{o.stdout, o.stderr} {
		if w != nil {
			err = errors.Join(err, w.Close())
		}
	}
	o.wg.Wait()
	for _, r := range o.readers {
		err = errors.Join(err, r.Close())
	}
	return err
}
