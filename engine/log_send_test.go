package engine

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

func TestSyslogMessage(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	pid := os.Getpid()
	stamp := at.Local().Format(time.Stamp)
	for _, tc := range []struct{ format, network, want string }{
		{"", "udp", fmt.Sprintf("<27>%s ship[%d]: text", stamp, pid)},
		{"", "tcp", fmt.Sprintf("<27>%s ship[%d]: text\n", stamp, pid)},
		{"rfc3164", "udp", fmt.Sprintf("<27>%s host ship[%d]: text", stamp, pid)},
		{"rfc5424", "tcp", fmt.Sprintf("<27>1 2026-01-02T03:04:05Z host ship %d ship - text\n", pid)},
		{"rfc5424micro", "udp", fmt.Sprintf("<27>1 2026-01-02T03:04:05.678901Z host ship %d ship - text", pid)},
	} {
		c, err := parseSyslog(map[string]string{"syslog-format": tc.format, "syslog-address": tc.network + "://h"})
		if err != nil {
			t.Fatal(err)
		}
		s := &syslogSender{syslogConfig: c, tag: "ship", host: "host", stream: tc.network == "tcp"}
		if got := string(s.message(&logEntry{text: []byte("text\n"), stream: Stderr, at: at})); got != tc.want {
			t.Errorf("%s over %s: %q, want %q", tc.format, tc.network, got, tc.want)
		}
	}
	c, _ := parseSyslog(map[string]string{"syslog-format": "rfc5424", "syslog-address": "tcp+tls://h", "syslog-facility": "local7"})
	s := &syslogSender{syslogConfig: c, tag: "a b", host: "host", stream: true}
	want := fmt.Sprintf("<190>1 2026-01-02T03:04:05Z host a_b %d a_b - text", pid)
	want = fmt.Sprintf("%d %s", len(want), want)
	if got := string(s.message(&logEntry{text: []byte("text\n"), stream: Stdout, at: at})); got != want {
		t.Errorf("over TLS: %q, want %q", got, want)
	}
}

// logged is a container that prints lines to a log driver.
func logged(driver string, options map[string]string, script string) *container.CreateRequest {
	req := request("sh", "-c", script)
	req.HostConfig.LogConfig = container.LogConfig{Type: driver, Config: options}
	return req
}

// lineServer takes the lines of all that connect.
func lineServer(t *testing.T, l net.Listener) <-chan string {
	lines := make(chan string, 1000)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				for s := bufio.NewScanner(conn); s.Scan(); {
					lines <- s.Text()
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return lines
}

// expect takes the next lines and looks for what each must end with.
func expect(t *testing.T, lines <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-lines:
			if !strings.HasSuffix(got, w) {
				t.Errorf("got %q, want %q", got, w)
			}
		case <-time.After(time.Minute):
			t.Fatalf("nothing comes, want %q", w)
		}
	}
}

// TestSyslog sends a log: over a server that is not there at first, and over a
// restart of the engine, each entry once.
func TestSyslog(t *testing.T) {
	te := newTestEngine(t)
	socket := filepath.Join(te.dir, "syslog")
	id := te.run("ship", logged("syslog", map[string]string{"syslog-address": "unix://" + socket, "tag": "{{.Name}}"},
		"echo one; while ! test -e /two; do sleep 0.01; done; echo two >&2; while ! test -e /go; do sleep 0.01; done; echo three; sleep 1000"))
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	lines := lineServer(t, l)
	expect(t, lines, "]: one")
	te.exec(id, "touch", "/two")
	expect(t, lines, "]: two")
	te.reopen()
	te.exec(id, "touch", "/go")
	expect(t, lines, "]: three")
	if out, stderr := te.logs(id); out != "one\nthree\n" || stderr != "two\n" {
		t.Errorf("logs: %q, %q", out, stderr)
	}
	// What a container has printed before its end is sent after it, too.
	l.Close()
	os.Remove(socket)
	other := te.run("boat", logged("syslog", map[string]string{"syslog-address": "unix://" + socket}, "echo last"))
	te.wait(other, container.WaitConditionNotRunning)
	te.reopen()
	if l, err = net.Listen("unix", socket); err != nil {
		t.Fatal(err)
	}
	expect(t, lineServer(t, l), "]: last")
}

// TestSyslogTLS sends to a server with a certificate, and refuses one whose
// certificate nobody has vouched for.
func TestSyslogTLS(t *testing.T) {
	cert, file := selfSigned(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	lines := lineServer(t, l)
	send := func(options map[string]string) error {
		options["syslog-address"] = "tcp+tls://" + l.Addr().String()
		rec := &record{ID: newID(), Name: "ship", Config: &container.Config{},
			HostConfig: &container.HostConfig{LogConfig: container.LogConfig{Type: logSyslog, Config: options}}}
		s, err := newSyslog(rec)
		if err != nil {
			return err
		}
		defer s.close()
		return s.send(t.Context(), &logEntry{text: []byte("hello\n"), stream: Stdout, at: time.Now()})
	}
	if err := send(map[string]string{"syslog-tls-ca-cert": file}); err != nil {
		t.Fatal(err)
	}
	expect(t, lines, "]: hello")
	if err := send(map[string]string{"syslog-tls-skip-verify": "true"}); err != nil {
		t.Fatal(err)
	}
	expect(t, lines, "]: hello")
	var unknown x509.UnknownAuthorityError
	if err := send(map[string]string{}); !errors.As(err, &unknown) {
		t.Errorf("an unknown certificate: %v", err)
	}
}

// selfSigned makes a certificate for 127.0.0.1, and a file with it.
func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// journalServer takes entries as systemd-journald does.
func journalServer(t *testing.T, path string) <-chan map[string]string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	entries := make(chan map[string]string, 100)
	go func() {
		b, oob := make([]byte, 1<<20), make([]byte, 100)
		for {
			n, on, _, _, err := conn.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			message := b[:n]
			if n == 0 && on > 0 {
				message = passedFile(oob[:on])
			}
			entries <- journalFields(message)
		}
	}()
	return entries
}

func passedFile(oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	f := os.NewFile(uintptr(fds[0]), "entry")
	defer f.Close()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil
	}
	data, _ := io.ReadAll(f)
	return data
}

func journalFields(b []byte) map[string]string {
	fields := map[string]string{}
	for len(b) > 0 {
		line, rest, _ := strings.Cut(string(b), "\n")
		if name, value, ok := strings.Cut(line, "="); ok {
			fields[name], b = value, []byte(rest)
			continue
		}
		n := binary.LittleEndian.Uint64([]byte(rest))
		fields[line], b = rest[8:8+n], []byte(rest[9+n:])
	}
	return fields
}

func TestJournald(t *testing.T) {
	te := newTestEngine(t)
	te.cfg.JournalSocket = filepath.Join(te.dir, "journal")
	entries := journalServer(t, te.cfg.JournalSocket)
	req := logged("journald", map[string]string{"labels": "app.name", "env": "COLOUR"}, "echo hello; while ! test -e /two; do sleep 0.01; done; echo error >&2; while ! test -e /go; do sleep 0.01; done; printf end")
	req.Config.Labels, req.Config.Env = map[string]string{"app.name": "x"}, []string{"COLOUR=two\nlines"}
	id := te.run("ship", req)
	for i, want := range []map[string]string{
		{"MESSAGE": "hello", "PRIORITY": "6", "CONTAINER_PARTIAL_MESSAGE": ""},
		{"MESSAGE": "error", "PRIORITY": "3"},
		{"MESSAGE": "end", "PRIORITY": "6", "CONTAINER_PARTIAL_MESSAGE": "true"},
	} {
		want["CONTAINER_NAME"], want["CONTAINER_ID"], want["CONTAINER_ID_FULL"] = "ship", short(id), id
		want["CONTAINER_TAG"], want["SYSLOG_IDENTIFIER"], want["IMAGE_NAME"] = short(id), short(id), "busybox"
		want["APP_NAME"], want["COLOUR"], want["CONTAINER_LOG_ORDINAL"] = "x", "two\nlines", fmt.Sprint(i+1)
		if i > 0 {
			te.exec(id, "touch", []string{"", "/two", "/go"}[i])
		}
		select {
		case got := <-entries:
			for k, v := range want {
				if got[k] != v {
					t.Errorf("%s: %q, want %q", k, got[k], v)
				}
			}
		case <-time.After(time.Minute):
			t.Fatal("no entry comes")
		}
	}
	if out, _ := te.logs(id); out != "hello\nend" {
		t.Errorf("logs: %q", out)
	}
	// What a datagram does not hold.
	big := strings.Repeat("x", 1<<20)
	j, err := newJournald(te.named(id).snapshot(), te.cfg.JournalSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if err := j.send(t.Context(), &logEntry{text: []byte(big + "\n"), stream: Stdout, at: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if got := (<-entries)["MESSAGE"]; got != big {
		t.Errorf("a message of %d bytes comes as %d", len(big), len(got))
	}
}

// fakeSender fails while it is told to.
type fakeSender struct {
	down bool
	got  []string
}

func (f *fakeSender) close() {}
func (f *fakeSender) send(_ context.Context, e *logEntry) error {
	if f.down {
		return errors.New("nobody there")
	}
	f.got = append(f.got, string(e.text))
	return nil
}

// TestSendPressed drops and counts what is rotated away while nobody takes it.
func TestSendPressed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	entry := func(text string) string {
		return fmt.Sprintf(`{"log":"%s\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}`+"\n", text)
	}
	for name, text := range map[string]string{".1": entry("a") + entry("b"), "": entry("c")} {
		if err := os.WriteFile(path+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	to := &fakeSender{down: true}
	c := newCtr(dir, &record{ID: "x"})
	c.dir = dir
	s := &sending{e: &Engine{log: slog.New(slog.DiscardHandler)}, c: c, to: to}
	r, err := newLogReader(&logFiles{path: path, max: 2}, LogsOptions{Stdout: true, Stderr: true, Tail: -1}, s)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	s.reader = r
	r.each = func(e *logEntry) error {
		if string(e.text) == "c\n" { // the receiver is back
			to.down = false
		}
		return s.deliver(t.Context(), e)
	}
	if err := r.readAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := "berth: 2 log entries (4 bytes) lost here: nobody there\nc\n"
	if got := strings.Join(to.got, ""); got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	again, err := newLogReader(r.files, r.opt, s)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	s.reader = again
	if err := s.resume(); err != nil {
		t.Fatal(err)
	}
	again.each = func(e *logEntry) error { t.Errorf("%q is sent again", e.text); return nil }
	if err := again.readAll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestSendFromCompressed goes on in a file that has been compressed since.
func TestSendFromCompressed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	entry := func(text string) string {
		return fmt.Sprintf(`{"log":"%s\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}`+"\n", text)
	}
	files := func() *logFiles { return &logFiles{path: path, max: 3} }
	to := &fakeSender{}
	c := newCtr(dir, &record{ID: "x"})
	c.dir = dir
	pass := func() {
		t.Helper()
		s := &sending{e: &Engine{log: slog.New(slog.DiscardHandler)}, c: c, to: to}
		r, err := newLogReader(files(), LogsOptions{Stdout: true, Stderr: true, Tail: -1}, s)
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		s.reader = r
		r.each = func(e *logEntry) error { return s.deliver(t.Context(), e) }
		if err := errors.Join(s.resume(), r.readAll(t.Context()), s.save()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte(entry("a")), 0o600); err != nil {
		t.Fatal(err)
	}
	pass()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(entry("b"))
	if err := errors.Join(err, f.Close(), os.Rename(path, path+".1"), os.WriteFile(path, []byte(entry("c")), 0o600)); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := files().compress(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".1" + gzSuffix); err != nil {
		t.Fatal(err)
	}
	pass()
	if got := strings.Join(to.got, ""); got != "a\nb\nc\n" {
		t.Errorf("sent %q", got)
	}
}
