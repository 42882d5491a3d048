package oci

import (
	"fmt"
	"io"
	"os"
	"sort"
	"time"

	p "github.com/berth-containers/berth/kernel/program"
)

// Trace collects where the time of one start goes: what the caller marks, and
// the steps of the new process by its own clock. A nil Trace collects nothing.
type Trace struct {
	began  time.Duration
	events []traceEvent
}

// traceEvent is the end of something the caller did, or the begin of a step of
// the container's process.
type traceEvent struct {
	at    time.Duration
	child bool
	calls int
	text  string
}

// NewTrace begins to count.
func NewTrace() *Trace { return &Trace{began: p.Now()} }

// Mark notes that what text says has just been done.
func (t *Trace) Mark(text string) {
	if t != nil {
		t.events = append(t.events, traceEvent{at: p.Now(), text: text})
	}
}

// child adds the steps of a process, one event for each run of calls of the
// same step.
func (t *Trace) child(prog *p.Program, image *os.File) error {
	if t == nil {
		return nil
	}
	stamps, err := prog.ReadStamps(image)
	if err != nil {
		return err
	}
	sort.Slice(stamps, func(i, j int) bool { return stamps[i].At < stamps[j].At })
	for _, s := range stamps {
		step := prog.Step(s.Op)
		if n := len(t.events); n > 0 && t.events[n-1].child && t.events[n-1].text == step {
			t.events[n-1].calls++
			continue
		}
		t.events = append(t.events, traceEvent{s.At, true, 1, step})
	}
	return nil
}

// Write prints the times, in milliseconds since the trace began, with what each
// took in microseconds: a table of what the caller did and, indented, of what
// the process did meanwhile.
func (t *Trace) Write(w io.Writer) error {
	sort.SliceStable(t.events, func(i, j int) bool { return t.events[i].at < t.events[j].at })
	last := t.began
	for i, e := range t.events {
		text, took := e.text, e.at-last
		at := e.at
		if e.child {
			text = fmt.Sprintf("    %s (%d)", e.text, e.calls)
			took = t.nextChild(i) - e.at
		} else {
			last = e.at
		}
		if _, err := fmt.Fprintf(w, "%8.3f ms %7d µs  %s\n", float64(at-t.began)/1e6, took.Microseconds(), text); err != nil {
			return err
		}
	}
	return nil
}

// nextChild is when the step that began with event i was over: the next one
// began, or the caller heard that the command runs.
func (t *Trace) nextChild(i int) time.Duration {
	end := t.events[i].at
	for _, e := range t.events[i+1:] {
		end = e.at
		if e.child {
			break
		}
	}
	return end
}
