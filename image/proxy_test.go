package image

import (
	"errors"
	"net"
	"sync"
	"testing"
)

// cuttingProxy passes connections on to a registry and cuts some of them off.
type cuttingProxy struct {
	host string

	mu sync.Mutex
	// budget is how many bytes a connection may carry, in either direction,
	// before it is cut; each cut doubles it. Zero: any number.
	budget int64
	// once: after the first cut there is no budget any more, for nobody.
	once  bool
	cut   int
	total int64
}

// newCuttingProxy listens on loopback for the length of the test.
func newCuttingProxy(t *testing.T, target string, budget int64) *cuttingProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &cuttingProxy{host: listener.Addr().String(), budget: budget}
	var conns sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	conns.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", target)
			if err != nil {
				c.Close()
				continue
			}
			mu.Lock()
			open[c], open[up] = true, true
			mu.Unlock()
			conns.Go(func() { p.pass(c, up) })
			conns.Go(func() { p.pass(up, c) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
	return p
}

var errCut = errors.New("cut")

// pass copies until an end, or until the budget is used up.
func (p *cuttingProxy) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	p.mu.Lock()
	left := p.budget
	limited := left > 0
	p.mu.Unlock()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if limited && left < int64(n) && !p.spent() {
			n, err = int(left), errCut
		}
		left -= int64(n)
		p.mu.Lock()
		p.total += int64(n)
		p.mu.Unlock()
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			if errors.Is(err, errCut) {
				p.mu.Lock()
				p.cut++
				p.budget *= 2
				p.mu.Unlock()
			}
			return
		}
	}
}

func (p *cuttingProxy) cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut
}

// spent says that there is to be no further cut.
func (p *cuttingProxy) spent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.once && p.cut > 0
}

// carried is how many bytes went through, in both directions.
func (p *cuttingProxy) carried() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}
