package engine

import (
	"slices"
	"syscall"
	"time"
)

// sender is on whose behalf a signal was sent.
type sender string

const (
	sentByStop     sender = "stop"  // a stop or restart was asked for
	sentByKill     sender = "kill"  // this signal was asked for
	sentAfterGrace sender = "grace" // the stop's signal had not ended it in time
)

// sentSignal is a signal the engine has sent to a container's init. It is kept
// to explain an end: that of a process with SIGKILL does not say whose it was.
type sentSignal struct {
	Signal syscall.Signal
	By     sender
	At     time.Time
}

// sentKept is how many signals are kept: what has ended a container is among
// the last.
const sentKept = 4

// noteSent remembers a signal. The list is not changed in place: copies of the
// record share it.
func (s *lifeState) noteSent(sig syscall.Signal, by sender) {
	list := append(slices.Clone(s.Sent), sentSignal{Signal: sig, By: by, At: time.Now().UTC()})
	s.Sent = list[max(0, len(list)-sentKept):]
}

// markSent notes a signal that is about to be sent. That it cannot be written
// keeps nobody from sending it. The caller holds act.
func (c *ctr) markSent(sig syscall.Signal, by sender) {
	_ = c.note(func(r *record) { r.State.noteSent(sig, by) })
}
