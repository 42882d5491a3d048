package keeper

import (
	"bytes"
	"errors"
	"sync"
	"time"
)

// errLogBufferFull is why entries of a log that does not wait are lost.
var errLogBufferFull = errors.New("the disk was slower than the container, and the buffer (max-buffer-size) full")

// logQueue writes entries to a file behind the back of those who make them, so
// that a slow disk stalls nobody. What does not fit into the queue is dropped
// and counted; the file tells of it.
type logQueue struct {
	file    *logFile // only the writer's
	buffers *sync.Pool
	limit   int64
	wake    chan struct{} // holds at most one ring; closed at the end
	done    chan struct{}
	// still holds a ring when nothing waits to be written.
	still chan struct{}

	mu      sync.Mutex
	waiting []*bytes.Buffer
	size    int64
	lost    loss
	// busy: the writer has something in hand.
	busy bool
}

func newLogQueue(file *logFile, buffers *sync.Pool, limit int64) *logQueue {
	q := &logQueue{file: file, buffers: buffers, limit: limit, wake: make(chan struct{}, 1), done: make(chan struct{}), still: make(chan struct{}, 1)}
	go q.run()
	return q
}

// add takes whole entries, and the buffer they are in.
func (q *logQueue) add(b *bytes.Buffer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := int64(b.Len()); q.size > 0 && q.size+n > q.limit {
		q.lost.entries += bytes.Count(b.Bytes(), []byte{'\n'})
		q.lost.bytes += b.Len()
		giveBack(q.buffers, b)
		return
	}
	q.waiting = append(q.waiting, b)
	q.size += int64(b.Len())
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take is what waits, and what was lost after it.
func (q *logQueue) take() (waiting []*bytes.Buffer, lost loss) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting, lost = q.waiting, q.lost
	q.waiting, q.lost, q.busy = nil, loss{}, true
	return waiting, lost
}

// written makes room.
func (q *logQueue) written(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.size -= int64(n)
}

func (q *logQueue) run() {
	defer close(q.done)
	for range q.wake {
		q.write()
	}
	q.write()
}

func (q *logQueue) write() {
	waiting, lost := q.take()
	for _, b := range waiting {
		n := b.Len()
		q.file.write(b.Bytes())
		giveBack(q.buffers, b)
		q.written(n)
	}
	if lost.entries > 0 {
		q.file.loseCount(lost.entries, lost.bytes, errLogBufferFull)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = false
	select {
	case q.still <- struct{}{}:
	default:
	}
}

// empty says that the file has all there is.
func (q *logQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.busy && q.size == 0 && q.lost.entries == 0
}

// settle waits until the file has all there is, what was lost included. Nothing may be
// added meanwhile. Past the deadline it returns false.
func (q *logQueue) settle(deadline time.Time) bool {
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case q.wake <- struct{}{}: // a ring may have been heard before the last loss
	default:
	}
	for {
		select {
		case <-q.still:
		case <-late.C:
			return false
		}
		if q.empty() {
			return true
		}
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// close returns when everything is written. Nothing may be added any more.
func (q *logQueue) close() {
	close(q.wake)
	<-q.done
}
