package cli

import (
	"context"
	"os"
	"testing"
)

func TestAskAgain(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for typed, want := range map[string]bool{"r\n": true, "x\nretry\n": true, "a\n": false, "\nABORT\n": false, "": false, "r": false} {
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		out.Close()
		a := newApp(Streams{In: in, Out: null, Err: null})
		got, err := a.askAgain(context.Background())
		if err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", typed, got, err, want)
		}
		in.Close()
	}
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(&Interrupted{2})
	if again, err := newApp(Streams{In: in, Out: null, Err: null}).askAgain(ctx); again || err == nil {
		t.Errorf("interrupted: got %v, %v", again, err)
	}
}
