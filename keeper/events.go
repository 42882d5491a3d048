package keeper

import (
	"net"
	"sync"
)

// subscriber is a client that wants to know of exits. What it has not read yet
// is queued: a client that is slow or stopped delays nobody.
type subscriber struct {
	mu    sync.Mutex
	queue []Status
	wake  chan struct{} // of capacity 1
}

func (b *subscriber) add(statuses ...Status) {
	b.mu.Lock()
	b.queue = append(b.queue, statuses...)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *subscriber) take() []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queue
	b.queue = nil
	return q
}

// publish tells all subscribers of an exit.
func (s *server) publish(status Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for b := range s.subscribers {
		b.add(status)
	}
}

// events sends all exits not forgotten and then each one as it happens. One
// that happens meanwhile may be sent twice.
func (s *server) events(conn *net.UnixConn) {
	b := &subscriber{wake: make(chan struct{}, 1)}
	s.subscribe(b)
	defer s.unsubscribe(b)
	for _, status := range s.list() {
		if status.Exited {
			b.add(status)
		}
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		awaitHangup(conn)
	}()
	defer func() {
		conn.Close()
		<-gone
	}()
	if writeFrame(conn, &response{}) != nil {
		return
	}
	for {
		for _, status := range b.take() {
			if writeFrame(conn, &response{Status: &status}) != nil {
				return
			}
		}
		select {
		case <-b.wake:
		case <-gone:
			return
		}
	}
}

func (s *server) subscribe(b *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribers[b] = struct{}{}
}

func (s *server) unsubscribe(b *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subscribers, b)
}
