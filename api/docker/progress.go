package docker

import (
	"encoding/json"
	"sync"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/jsonstream"
)

// message is a progress message as clients read it: Docker's, whose errorDetail
// has a hint, when there is one. ErrorText repeats the error's text for
// libraries that know no errorDetail (deprecated since API 1.4).
type message struct {
	jsonstream.Message
	Detail    *errorDetail `json:"errorDetail,omitempty"`
	ErrorText string       `json:"error,omitempty"`
}

// errorDetail says what ended the work that was reported on.
type errorDetail struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// progress sends a stream of messages to one client. The engine's callbacks
// return at once, however slow the client reads: a writer goroutine drains the
// queue, and a layer's byte counts that were not sent yet are overtaken by the
// newer ones.
type progress struct {
	w *response

	mu     sync.Mutex
	queue  []message
	filled *sync.Cond
	begun  bool // something was sent
	closed bool
	failed error // the client is gone
	done   chan struct{}
}

// newProgress starts the stream's writer; [progress.close] ends it. Nothing is
// sent before the first message, so that an error can still set the status.
func newProgress(w *response) *progress {
	p := &progress{w: w, done: make(chan struct{})}
	p.filled = sync.NewCond(&p.mu)
	go p.write()
	return p
}

// event queues what the engine reports.
func (p *progress) event(e engine.ProgressEvent) {
	m := jsonstream.Message{ID: e.ID, Status: e.Status, Stream: e.Stream}
	if e.Pushed != nil {
		p.send(jsonstream.Message{Aux: pushAux(e.Pushed)})
		return
	}
	if e.Stream == "" {
		m.Progress = &jsonstream.Progress{Current: e.Current, Total: e.Total}
	}
	p.send(m)
}

// send queues a message.
func (p *progress) send(m jsonstream.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = true
	if p.failed != nil || p.overtakes(m) {
		return
	}
	p.queue = append(p.queue, message{Message: m})
	p.filled.Signal()
}

// overtakes replaces the last queued message of the same layer when both are
// byte counts of the same step.
func (p *progress) overtakes(m jsonstream.Message) bool {
	for i := len(p.queue) - 1; i >= 0 && m.ID != ""; i-- {
		if queued := &p.queue[i]; queued.ID == m.ID {
			if queued.Status != m.Status || m.Progress == nil {
				return false
			}
			queued.Progress = m.Progress
			return true
		}
	}
	return false
}

// write sends what is queued until the stream is closed.
func (p *progress) write() {
	defer close(p.done)
	encoder := json.NewEncoder(p.w)
	for {
		batch, more := p.take()
		for _, m := range batch {
			if err := encoder.Encode(m); err != nil {
				p.fail(err)
				return
			}
		}
		if !more {
			return
		}
		if err := p.w.flush(); err != nil {
			p.fail(err)
			return
		}
	}
}

// take waits for messages; more is false when there will be none after these.
func (p *progress) take() (batch []message, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) == 0 && !p.closed {
		p.filled.Wait()
	}
	batch, p.queue = p.queue, nil
	return batch, !p.closed
}

// fail drops what is queued: nobody reads it.
func (p *progress) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed, p.queue = err, nil
}

// close sends the rest and ends the stream. An err that no message preceded is
// returned, to become the answer's status; else it is the last message.
func (p *progress) close(err error) error {
	p.mu.Lock()
	if err != nil && p.begun {
		p.queue = append(p.queue, message{
			Detail:    &errorDetail{Code: statusOf(err), Message: err.Error(), Hint: errdefs.Hint(err)},
			ErrorText: err.Error(),
		})
		err = nil
	}
	p.closed = true
	p.filled.Signal()
	p.mu.Unlock()
	<-p.done
	return err
}
