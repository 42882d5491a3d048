package docker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// TestShutdownWithNewConnections: a request that comes when the server is on its way
// down, over a connection of before, is answered; one that does not come holds nobody
// up.
func TestShutdownWithNewConnections(t *testing.T) {
	for _, tc := range []struct {
		name  string
		grace time.Duration
		asks  bool
	}{{"asks", time.Hour, true}, {"says nothing", 0, false}} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "sock"))
			if err != nil {
				t.Fatal(err)
			}
			s := New(Config{})
			s.fresh.grace = tc.grace
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			conn, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for accepted := false; !accepted; {
				s.fresh.mu.Lock()
				accepted = len(s.fresh.conns) == 1
				s.fresh.mu.Unlock()
			}
			down := make(chan error, 1)
			go func() { down <- s.Shutdown(context.Background()) }()
			if err := <-served; err != nil {
				t.Errorf("serve: %v", err)
			}
			if tc.asks {
				_, err := io.WriteString(conn, "GET /no/such/page HTTP/1.1\r\nHost: berth\r\n\r\n")
				resp, rerr := http.ReadResponse(bufio.NewReader(conn), nil)
				if err = errors.Join(err, rerr); err != nil || resp.StatusCode != http.StatusNotFound {
					t.Errorf("answer %+v, %v", resp, err)
				}
			} else if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("who said nothing: %v", err)
			}
			if err := <-down; err != nil {
				t.Errorf("shut down: %v", err)
			}
		})
	}
}
