package crash_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// oldVar names a directory with berthd and berth-oci of an earlier release, to be
// upgraded from. Unset: those of now, with another version.
const oldVar = "BERTH_OLD_BIN"

// TestUpgrade replaces a running engine, and then the keeper, by those of another
// build while a container prints, its log is followed, somebody types to another one
// and clients ask without a pause: no container notices, nothing of a log is lost,
// and where the socket is somebody else's (systemd's) no client is refused.
func TestUpgrade(t *testing.T) {
	r := newRig(t)
	newer := r.bin
	r.purge(t)
	older := oldBinaries(t, r)
	for _, activated := range []bool{false, true} {
		t.Run(fmt.Sprintf("activated=%v", activated), func(t *testing.T) {
			r.bin = older
			if activated {
				defer r.openSocket(t)()
			}
			r.begin(t)
			r.upgrade(t, newer)
			r.refuseDowngrade(t)
			r.purge(t)
			r.cmd = nil
		})
	}
}

// oldBinaries are what is upgraded from.
func oldBinaries(t *testing.T, r *rig) string {
	t.Helper()
	if dir := os.Getenv(oldVar); dir != "" {
		return dir
	}
	dir := r.path("old")
	build := exec.Command("make", "-s", "-C", "../..", "build", "BIN="+dir, "BINARIES=berthd", "VERSION=0.0.1-before")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	keeper, err := os.ReadFile(filepath.Join(r.bin, "berth-oci"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "berth-oci"), keeper, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// openSocket opens the API's socket, as systemd does for a service that is activated
// by it.
func (r *rig) openSocket(t *testing.T) (done func()) {
	t.Helper()
	if err := os.MkdirAll(r.path("run"), 0o711); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.path("run/berth.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if r.activated, err = l.File(); err != nil {
		t.Fatal(err)
	}
	return func() {
		r.activated.Close()
		r.activated = nil
		l.Close()
	}
}

// ticks prints numbers for as long as it runs; repeats repeats what is typed.
var (
	ticks   = []string{"sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"}
	repeats = []string{"sh", "-c", "while read line; do echo $line; done"}
)

// upgrade replaces the engine and the keeper by those in newer.
func (r *rig) upgrade(t *testing.T, newer string) {
	talking := config(repeats, nil)
	talking["OpenStdin"] = true
	for name, cfg := range map[string]any{"tick": config(ticks, nil), "talk": talking} {
		if err := r.do("POST", "/containers/create?name="+name, cfg, nil); err != nil {
			t.Fatal(err)
		}
		if err := r.do("POST", "/containers/"+name+"/start", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	before, version := r.lives(t), r.version(t)
	r.say(t, "hello")
	ctx, cancel := context.WithCancel(t.Context())
	follower, client := &follower{r: r}, &poller{r: r}
	var busy sync.WaitGroup
	busy.Go(func() { follower.run(ctx) })
	for range 2 {
		busy.Go(func() { client.run(ctx) })
	}
	defer busy.Wait()
	defer cancel()
	follower.await(t, 10)

	begun := time.Now()
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.gone:
	case <-time.After(patience):
		t.Fatal("the engine does not end")
	}
	ended := time.Now()
	r.bin = newer
	r.start(t)
	ready := time.Now()
	if now := r.version(t); now == version {
		t.Errorf("version %s, before too", now)
	}
	follower.await(t, follower.seen()+10)
	r.say(t, "still here")
	if after := r.lives(t); after != before {
		t.Errorf("containers are now\n%s\nthey were\n%s", after, before)
	}

	typing := r.attach(t)
	defer typing.Close()
	if err := r.do("POST", "/berth/system/upgrade-keeper", nil, nil); err != nil {
		t.Fatal(err)
	}
	typing.says(t, "through both")
	follower.await(t, follower.seen()+10)
	if after := r.lives(t); after != before {
		t.Errorf("containers are now\n%s\nthey were\n%s", after, before)
	}
	if findings, err := r.check(); err != nil || findings != "" {
		t.Errorf("a check finds %s (%v)", findings, err)
	}
	cancel()
	busy.Wait()
	client.mu.Lock()
	defer client.mu.Unlock()
	t.Logf("the engine ended in %v, the next was ready in %v; the longest wait of a client was %v, of who follows a log %v; %d requests, %d refused",
		ended.Sub(begun), ready.Sub(ended), client.longest, follower.longest, client.asked, client.refused)
	if follower.broken != "" {
		t.Error(follower.broken)
	}
	// Engines of before had an end of file for who had just connected when they ended.
	if r.activated != nil && client.refused > 0 && os.Getenv(oldVar) == "" {
		t.Errorf("%d requests were refused, though somebody listened all the time: %v", client.refused, client.last)
	}
}

// lives is what would be different if a container had been started again.
func (r *rig) lives(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, name := range []string{"tick", "talk"} {
		var c struct {
			RestartCount int
			State        struct {
				Pid               int
				Status, StartedAt string
			}
		}
		if err := r.do("GET", "/containers/"+name+"/json", nil, &c); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %+v", name, c))
	}
	return strings.Join(lines, "\n")
}

func (r *rig) version(t *testing.T) string {
	t.Helper()
	var v struct{ Version string }
	if err := r.do("GET", "/version", nil, &v); err != nil {
		t.Fatal(err)
	}
	return v.Version
}

// follower follows tick's log, and follows it again where it is cut off.
type follower struct {
	r *rig

	mu      sync.Mutex
	last    int
	at      string // the last entry's time
	read    time.Time
	longest time.Duration
	broken  string
}

func (f *follower) run(ctx context.Context) {
	for ctx.Err() == nil {
		_ = f.follow(ctx) // it was cut off; the lines tell whether anything is missing
	}
}

func (f *follower) follow(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://berth/containers/tick/logs?follow=1&stdout=1&timestamps=1&since="+url.QueryEscape(f.at), nil)
	if err != nil {
		return err
	}
	resp, err := f.r.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return eachFrame(resp.Body, f.take)
}

// take notes a line: a time and a number.
func (f *follower) take(line string) {
	at, number, _ := strings.Cut(strings.TrimSpace(line), " ")
	n, err := strconv.Atoi(number)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err != nil || n > f.last+1:
		f.broken = fmt.Sprintf("after %d the log says %q", f.last, line)
	case n <= f.last:
		return // the first of an answer may be the last of the one before
	}
	if now := time.Now(); f.last > 0 {
		f.longest = max(f.longest, now.Sub(f.read))
	}
	f.last, f.at, f.read = n, at, time.Now()
}

func (f *follower) seen() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// await waits until the log has come to n.
func (f *follower) await(t *testing.T, n int) {
	t.Helper()
	if err := f.r.until(func() (bool, error) { return f.seen() >= n, nil }); err != nil {
		t.Fatalf("the log has come to %d, not to %d: %v", f.seen(), n, err)
	}
}

// eachFrame calls f for each of Docker's frames.
func eachFrame(r io.Reader, f func(string)) error {
	b := bufio.NewReader(r)
	for {
		var header [8]byte
		if _, err := io.ReadFull(b, header[:]); err != nil {
			return err
		}
		text := make([]byte, int(header[5])<<16|int(header[6])<<8|int(header[7]))
		if _, err := io.ReadFull(b, text); err != nil {
			return err
		}
		f(string(text))
	}
}

// poller asks for the containers without a pause.
type poller struct {
	r *rig

	mu             sync.Mutex
	asked, refused int
	last           error
	longest        time.Duration
}

func (p *poller) run(ctx context.Context) {
	good := time.Now()
	for ctx.Err() == nil {
		_, err := p.r.get("/containers/json")
		now := time.Now()
		p.mu.Lock()
		p.asked++
		if err != nil {
			p.refused, p.last = p.refused+1, err
		} else {
			p.longest, good = max(p.longest, now.Sub(good)), now
		}
		p.mu.Unlock()
	}
}

// attachment is a connection to talk's streams.
type attachment struct {
	net.Conn
	lines chan string
}

// attach attaches to talk.
func (r *rig) attach(t *testing.T) *attachment {
	t.Helper()
	conn, err := net.Dial("unix", r.path("run/berth.sock"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "POST /containers/talk/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: berth\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	from := bufio.NewReader(conn)
	resp, err := http.ReadResponse(from, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("attach: %v, %v", resp, err)
	}
	a := &attachment{conn, make(chan string, 16)}
	go func() {
		defer close(a.lines)
		_ = eachFrame(from, func(text string) { a.lines <- text })
	}()
	return a
}

// says types a line and expects it back.
func (a *attachment) says(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(a, line+"\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-a.lines:
		if got != line+"\n" {
			t.Errorf("typed %q, and %q came back", line, got)
		}
	case <-time.After(patience):
		t.Errorf("%q does not come back", line)
	}
}

// say attaches for one line.
func (r *rig) say(t *testing.T, line string) {
	t.Helper()
	a := r.attach(t)
	defer a.Close()
	a.says(t, line)
}

// refuseDowngrade gives the state a format of the future: an engine refuses it and
// changes nothing, and the containers run on.
func (r *rig) refuseDowngrade(t *testing.T) {
	t.Helper()
	before := r.lives(t)
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	<-r.gone
	path := r.path("state/format.json")
	now, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	future := []byte(`{"Format":999,"Berth":"99.0.0"}` + "\n")
	if err := os.WriteFile(path, future, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(r.bin, "berthd"), r.flags()...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !bytes.Contains(out, []byte("format 999, of Berth 99.0.0")) || !bytes.Contains(out, []byte("hint: ")) {
		t.Errorf("an older engine: %v\n%s", err, out)
	}
	if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, future) {
		t.Errorf("the format is now %q, %v", text, err)
	}
	if err := os.WriteFile(path, now, 0o644); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	if after := r.lives(t); after != before {
		t.Errorf("containers are now\n%s\nthey were\n%s", after, before)
	}
}
