package keeper

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/berth-containers/berth/errdefs"
)

// maxCapture bounds what is kept of a process's output.
const maxCapture = 1 << 20

// capture keeps the beginning of what a process prints.
type capture struct {
	limit int

	mu   sync.Mutex
	kept []byte
}

func (c *capture) add(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, b[:min(len(b), c.limit-len(c.kept))]...)
}

func (c *capture) output() []byte {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept
}

// checkCapture refuses what cannot be captured.
func checkCapture(r *ExecRequest) error {
	switch {
	case r.Capture < 0 || r.Capture > maxCapture:
		return fmt.Errorf("capture %d bytes, the limit is %d: %w", r.Capture, maxCapture, errdefs.ErrInvalid)
	case r.Capture > 0 && r.Process.Terminal:
		return fmt.Errorf("capture the output of a terminal: %w", errdefs.ErrUnsupported)
	}
	return nil
}

// answerEnd answers a second time when a captured process has exited, and forgets
// it. A successor, which cannot answer, tells of the exit as of any other.
func (s *server) answerEnd(conn *net.UnixConn, p *process) {
	<-p.done
	s.gate.RLock()
	defer s.gate.RUnlock()
	status := p.currentStatus()
	s.drop(p)
	s.reply(conn, &response{Status: &status})
}

// Captured is a running process whose output the keeper captures.
type Captured struct {
	// Status is that of the running process.
	Status Status

	client *Client
	conn   *net.UnixConn
}

// ExecCaptured starts another process in a running container, of whose output the
// first r.Capture bytes come with its exit; ctx as with Start. The caller closes what
// it returns.
func (c *Client) ExecCaptured(ctx context.Context, r *ExecRequest) (*Captured, error) {
	conn, err := c.place.dial(ctx)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	status, err := c.launchOn(ctx, conn, opExec, key{r.ContainerID, r.ExecID}, r)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Captured{Status: status, client: c, conn: conn}, nil
}

// Wait waits for the process's exit, which is forgotten then. A keeper that becomes
// another program meanwhile, or is older than captures, ends the connection: that is
// [errdefs.ErrUnavailable], and the exit is among the events, to be forgotten by who
// takes note of it.
func (p *Captured) Wait(ctx context.Context) (Status, error) {
	p.conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { p.conn.SetDeadline(longAgo()) })
	defer stop()
	answer, err := receive(p.conn)
	if err != nil {
		err = p.client.explain(ctx, err)
	}
	return statusOf(answer, err)
}

// Close ends the connection. The process goes on.
func (p *Captured) Close() error { return p.conn.Close() }
