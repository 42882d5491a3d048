package docker

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// freshGrace is how long a client that has just connected may take to send its
// request when the server goes down.
const freshGrace = 500 * time.Millisecond

// freshConns are the connections whose first request has not come to its handler yet.
// net/http drops such a request when it shuts down, and its client, who had done
// nothing wrong, has an end of file for an answer.
type freshConns struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	// none is closed when there is none left; nil while nobody waits for that.
	none chan struct{}
	// grace is how long wait waits.
	grace time.Duration
}

type connKey struct{}

// enter notes a new connection.
func (f *freshConns) enter(ctx context.Context, c net.Conn) context.Context {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conns == nil {
		f.conns = map[net.Conn]bool{}
	}
	f.conns[c] = true
	return context.WithValue(ctx, connKey{}, c)
}

// leave notes that a connection's request is being answered, or that there is none.
func (f *freshConns) leave(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	if len(f.conns) == 0 && f.none != nil {
		close(f.none)
		f.none = nil
	}
}

// begun is leave for the connection of a request.
func (f *freshConns) begun(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		f.leave(c)
	}
}

// changed is leave for a connection that is closed.
func (f *freshConns) changed(c net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		f.leave(c)
	}
}

// wait waits until there is none, within bounds, and closes what has sent nothing
// until then. Nobody accepts any more.
func (f *freshConns) wait(ctx context.Context) {
	f.mu.Lock()
	if len(f.conns) == 0 {
		f.mu.Unlock()
		return
	}
	none := make(chan struct{})
	f.none = none
	f.mu.Unlock()
	timer := time.NewTimer(f.grace)
	defer timer.Stop()
	select {
	case <-none:
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.none = nil
	for c := range f.conns {
		_ = c.Close() // its end is seen by who reads from it
	}
}

// door is a listener that may be closed twice.
type door struct {
	net.Listener
	once sync.Once
	err  error
}

func (d *door) Close() error {
	d.once.Do(func() { d.err = d.Listener.Close() })
	return d.err
}

// doors are the listeners that are served.
type doors struct {
	mu   sync.Mutex
	open []*door
	// serving counts them.
	serving sync.WaitGroup
}

func (d *doors) add(l net.Listener) *door {
	one := &door{Listener: l}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = append(d.open, one)
	d.serving.Add(1)
	return one
}

// close closes them, and returns when what was accepted is known.
func (d *doors) close() {
	d.mu.Lock()
	for _, one := range d.open {
		_ = one.Close() // http.Server's Shutdown asks again
	}
	d.mu.Unlock()
	d.serving.Wait()
}
