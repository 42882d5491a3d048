package docker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
)

// fileEngine loads what is an open file.
type fileEngine struct {
	Engine
	err   error
	began chan struct{} // when not nil, the load ends with its context
}

func (e *fileEngine) Leftovers(context.Context) ([]engine.OperationInfo, error) { return nil, nil }

func (e *fileEngine) ImageLoad(ctx context.Context, r io.Reader, opt engine.ImageLoadOptions) ([]string, error) {
	f, ok := r.(*os.File)
	if !ok {
		return nil, errors.New("it is no file")
	}
	if e.began != nil {
		close(e.began)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	text, err := io.ReadAll(f)
	if err != nil || e.err != nil {
		return nil, errors.Join(err, e.err)
	}
	opt.Progress(engine.ProgressEvent{Stream: "Loaded image: " + string(text) + "\n"})
	return []string{string(text)}, nil
}

// upgradeForFile asks for a load and waits until the engine wants the file.
func upgradeForFile(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, "POST /berth/images/load HTTP/1.1\r\nHost: berth\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	head, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil) // no longer than the head
	if err != nil || head.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v, %v", head, err)
	}
	return conn
}

func readAnswer(t *testing.T, conn net.Conn) (int, string, http.Header) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(text)), resp.Header
}

// TestLoadFile: the engine gets the client's open file, from where it was read to,
// and answers as it does to an archive that is sent.
func TestLoadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, []byte("skipped busybox"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		send   []int // descriptors; -1 is that of the archive
		err    error
		status int
		answer string
	}{
		"loaded":       {send: []int{-1}, status: 200, answer: `{"stream":"Loaded image: busybox\n"}`},
		"two files":    {send: []int{-1, -1}, status: 200, answer: `{"stream":"Loaded image: busybox\n"}`},
		"refused":      {send: []int{-1}, err: errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, errors.New("no archive")), "a hint"), status: 400, answer: `{"message":"no archive"}`},
		"no file":      {status: 400, answer: `{"message":"no file came with the request"}`},
		"a device":     {send: []int{1000}, status: 400, answer: `{"message":"what came with the request is not a regular file"}`},
		"a failed one": {send: []int{-1}, err: errors.New("it burns"), status: 500, answer: `{"message":"it burns"}`},
	} {
		t.Run(name, func(t *testing.T) {
			socket, _ := serve(t, &fileEngine{err: test.err})
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Seek(8, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			var oob []byte
			var fds []int
			for _, fd := range test.send {
				fds = append(fds, map[bool]int{true: int(f.Fd()), false: int(null.Fd())}[fd < 0])
			}
			if fds != nil {
				oob = unix.UnixRights(fds...)
			}
			conn := upgradeForFile(t, socket)
			if _, _, err := conn.WriteMsgUnix([]byte{0}, oob, nil); err != nil {
				t.Fatal(err)
			}
			status, answer, header := readAnswer(t, conn)
			if status != test.status || answer != test.answer || header.Get(hintHeader) != errdefs.Hint(test.err) && test.err != nil || header.Get("Api-Version") == "" {
				t.Errorf("answer %d %s %v, want %d %s", status, answer, header, test.status, test.answer)
			}
		})
	}
	socket, _ := serve(t, &fileEngine{})
	resp, body := send(t, httpClient(t, socket), http.MethodPost, "/berth/images/load", "")
	if resp.StatusCode != 400 || !strings.Contains(resp.Header.Get(hintHeader), "/images/load") {
		t.Errorf("without an upgrade: %s %s", resp.Status, body)
	}
}

// TestLoadFileGivenUp: the load ends when the client leaves, before or after it
// sent the file, and when it is cancelled.
func TestLoadFileGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, how := range []string{"left early", "left", "cancelled"} {
		t.Run(how, func(t *testing.T) {
			e := &fileEngine{began: make(chan struct{})}
			socket, s := serve(t, e) // which fails when it cannot shut down
			conn := upgradeForFile(t, socket)
			if how == "left early" {
				conn.Close()
				return
			}
			if _, _, err := conn.WriteMsgUnix([]byte{0}, unix.UnixRights(int(f.Fd())), nil); err != nil {
				t.Fatal(err)
			}
			<-e.began
			if how == "left" {
				conn.Close()
				return
			}
			list := s.operations.List()
			if len(list) != 1 || list[0].Kind != "image load" {
				t.Fatalf("operations are %+v", list)
			}
			if err := s.operations.Cancel(list[0].ID); err != nil {
				t.Fatal(err)
			}
			if status, answer, _ := readAnswer(t, conn); status < 400 || !strings.Contains(answer, "cancelled as operation") {
				t.Errorf("answer %d %s", status, answer)
			}
		})
	}
}
