package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// attachEngine attaches to its process.
type attachEngine struct {
	Engine
	process *fakeProcess
	got     engine.AttachOptions
	execErr error
}

func (e *attachEngine) ContainerAttach(_ context.Context, ref string, opt engine.AttachOptions) (engine.Stream, error) {
	if ref != "web" {
		return nil, errdefs.As(errdefs.ErrNotFound, errors.New("no such container: "+ref))
	}
	e.got = opt
	return e.process, nil
}

func (e *attachEngine) ExecInspect(_ context.Context, id string) (*container.ExecInspectResponse, error) {
	if id != "e1" {
		return nil, errdefs.As(errdefs.ErrNotFound, errors.New("no such exec: "+id))
	}
	return &container.ExecInspectResponse{ID: id, OpenStdin: true}, nil
}

func (e *attachEngine) ExecStart(_ context.Context, _ string, opt engine.ExecStartOptions) (engine.Stream, error) {
	if e.execErr != nil || opt.Detach {
		return nil, e.execErr
	}
	return e.process, nil
}

// TestAttachUpgrade: Docker's client sends input, ends it and still reads.
func TestAttachUpgrade(t *testing.T) {
	for _, tty := range []bool{false, true} {
		t.Run(fmt.Sprint("tty=", tty), func(t *testing.T) {
			e := &attachEngine{process: newFakeProcess(tty)}
			socket, _ := serve(t, e)
			c := mobyClient(t, socket, "1.50")
			got, err := c.ContainerAttach(t.Context(), "web", client.ContainerAttachOptions{
				Stream: true, Stdin: true, Stdout: true, DetachKeys: "ctrl-a"})
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			if e.got != (engine.AttachOptions{Stream: true, Stdin: true, Stdout: true, DetachKeys: "ctrl-a"}) {
				t.Errorf("engine got %+v", e.got)
			}
			if kind, _ := got.MediaType(); kind != streamType(tty, 50) {
				t.Errorf("media type %q", kind)
			}
			go func() {
				_, _ = io.WriteString(got.Conn, "to be echoed")
				_ = got.CloseWrite()
			}()
			echoed, err := io.ReadAll(e.process.stdin) // ends with the client's CloseWrite
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.process.stdout.Write(append([]byte("> "), echoed...)); err != nil {
				t.Fatal(err)
			}
			e.process.stdout.Close()
			all, err := io.ReadAll(got.Reader)
			if err != nil || string(all) != "> to be echoed" {
				t.Errorf("read %q, %v", all, err)
			}
			<-e.process.closed
		})
	}
}

// TestMediaTypes: what the stream is called, by version and terminal.
func TestMediaTypes(t *testing.T) {
	const raw, multiplexed = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"
	for _, test := range []struct {
		tty  bool
		v    version
		want string
	}{{false, 41, raw}, {false, 42, multiplexed}, {true, 41, raw}, {true, 56, raw}} {
		if got := streamType(test.tty, test.v); got != test.want {
			t.Errorf("tty %v, %v: %s", test.tty, test.v, got)
		}
	}
}

// TestAttachWithoutUpgrade: the old form answers 200 and goes on raw; input
// that came with the headers is not lost.
func TestAttachWithoutUpgrade(t *testing.T) {
	e := &attachEngine{process: newFakeProcess(true)}
	socket, _ := serve(t, e)
	conn, reader, resp := rawRequest(t, socket,
		"POST /v1.24/containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nearly ")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/vnd.docker.raw-stream" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	if _, err := io.WriteString(conn, "late"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if in, err := io.ReadAll(e.process.stdin); err != nil || string(in) != "early late" {
		t.Errorf("process read %q, %v", in, err)
	}
	if _, err := io.WriteString(e.process.stdout, "bye"); err != nil {
		t.Fatal(err)
	}
	e.process.stdout.Close()
	if out, err := io.ReadAll(reader); err != nil || string(out) != "bye" {
		t.Errorf("client read %q, %v", out, err)
	}
}

// TestAttachedClientLeaves: the process is detached although it is silent.
func TestAttachedClientLeaves(t *testing.T) {
	const head = "POST /containers/web/attach?stream=1&stdout=1%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	for _, stdin := range []string{"", "&stdin=1"} {
		for _, halfFirst := range []bool{false, true} {
			e := &attachEngine{process: newFakeProcess(false)}
			socket, _ := serve(t, e)
			conn, _, resp := rawRequest(t, socket, fmt.Sprintf(head, stdin))
			if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "tcp" {
				t.Fatalf("%s %v", resp.Status, resp.Header)
			}
			if halfFirst {
				if err := conn.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				// The door has seen the half close when it answers output after it.
				if _, err := io.WriteString(e.process.stdout, "x"); err != nil {
					t.Fatal(err)
				}
				select {
				case <-e.process.closed:
					t.Fatal("half-closed client was taken for gone")
				default:
				}
			}
			conn.Close()
			<-e.process.closed
		}
	}
}

// TestAttachUnknown: errors before the upgrade are plain HTTP.
func TestAttachUnknown(t *testing.T) {
	socket, _ := serve(t, &attachEngine{})
	_, _, resp := rawRequest(t, socket, "POST /containers/db/attach?stream=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	if resp.StatusCode != 404 {
		t.Errorf("%s, want 404", resp.Status)
	}
}

// TestShutdownDetaches: attached clients do not hold the server up.
func TestShutdownDetaches(t *testing.T) {
	e := &attachEngine{process: newFakeProcess(false)}
	socket, s := serve(t, e)
	rawRequest(t, socket, "POST /containers/web/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-e.process.closed
}

// TestExecFailure: a process that cannot start says why: in the stream for
// clients that upgrade, with a status for the others.
func TestExecFailure(t *testing.T) {
	e := &attachEngine{execErr: errdefs.As(errdefs.ErrInvalid, errors.New(`exec "nope": not found`))}
	socket, _ := serve(t, e)
	c := mobyClient(t, socket, "1.56")
	got, err := c.ExecAttach(t.Context(), "e1", client.ExecAttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	var stdout, stderr bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, &stderr, got.Reader); err != nil {
		t.Fatal(err)
	}
	if stdout.Len() > 0 || !strings.Contains(stderr.String(), `exec "nope": not found`) {
		t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
	}
	if _, err := c.ExecStart(t.Context(), "e1", client.ExecStartOptions{Detach: true}); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("detached: %v", err)
	}
	e.execErr = nil
	if _, err := c.ExecStart(t.Context(), "e1", client.ExecStartOptions{Detach: true}); err != nil {
		t.Errorf("detached: %v", err)
	}
}
