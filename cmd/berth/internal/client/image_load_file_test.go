package client

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestImageLoadFile: an archive that is a file is given to the engine, and sent to
// one that does not take it.
func TestImageLoadFile(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, []byte("archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func(e *engine) (string, error) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		body, err := e.ImageLoad(ctx, f, 7, true, "")
		if err != nil {
			return "", err
		}
		defer body.Close()
		text, err := io.ReadAll(body)
		return string(text), err
	}
	answer := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n%s\r\n"
	for name, test := range map[string]struct{ answer, want, err string }{
		"loaded":  {fmt.Sprintf(answer, "4\r\ndone\r\n0\r\n"), "done", ""},
		"refused": {"HTTP/1.1 400 Bad Request\r\nContent-Length: 17\r\n\r\n{\"message\":\"bad\"}", "", "bad"},
		"lacking": {"HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\n{\"message\":\"none\"}", "", "none"},
		"died":    {fmt.Sprintf(answer, "4\r\ndone"), "done", "lost the connection"},
		"silent":  {"", "", "lost the connection"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil || r.URL.Path != "/berth/images/load" || r.URL.Query().Get("quiet") != "1" {
					t.Errorf("asked for %s: %v", r.URL, err)
					return
				}
				defer conn.Close()
				fmt.Fprint(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
				if got := receivedText(conn.(*net.UnixConn)); got != "archive" {
					t.Errorf("the file says %q", got)
				}
				fmt.Fprint(conn, test.answer)
			})
			got, err := load(e)
			if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("answer %q, %v", got, err)
			}
		})
	}
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/images/load" {
			http.NotFound(w, r)
			return
		}
		text, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "was sent %s", text)
	})
	if got, err := load(e); got != "was sent archive" || err != nil {
		t.Errorf("another engine answers %q, %v", got, err)
	}
}

// receivedText reads the file that comes over a connection.
func receivedText(conn *net.UnixConn) string {
	oob := make([]byte, 64)
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return err.Error()
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return fmt.Sprint(len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return fmt.Sprint(fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "received")
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
