package autostart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// asEngine in the environment makes the test binary an engine: "listen" until
// it is told to end, "fail", or "hang" until the test has ended.
const asEngine = "BERTH_TEST_AS_ENGINE"

func TestMain(m *testing.M) {
	switch os.Getenv(asEngine) {
	case "listen":
		engine()
	case "fail":
		for i := range 9 {
			fmt.Fprintf(os.Stderr, "line %d\n", i)
		}
		os.Exit(3)
	case "hang":
		hang()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// engine listens at the socket named by its arguments, writes that it was
// started, and ends when told to on a connection.
func engine() {
	root := os.Args[len(os.Args)-1]
	f, err := os.OpenFile(filepath.Join(root, "started"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	sid, _ := unix.Getsid(0)
	fmt.Fprintf(f, "%s session=%v\n", strings.Join(os.Args[1:], " "), sid == os.Getpid())
	f.Close()
	os.Remove(filepath.Join(root, "s")) // of an engine that crashed
	l, err := net.Listen("unix", filepath.Join(root, "s"))
	if err != nil {
		panic(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		var b [4]byte
		if n, _ := c.Read(b[:]); n > 0 {
			os.Exit(0)
		}
		c.Close()
	}
}

// hang waits until nobody has the pipe beside the socket open for writing.
func hang() {
	pipe, err := os.OpenFile(filepath.Join(os.Args[len(os.Args)-1], "alive"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == nil {
		pipe.Read(make([]byte, 1))
	}
}

func newTestEngine(t *testing.T, kind string) Engine {
	t.Helper()
	t.Setenv(asEngine, kind)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	e := Engine{RunRoot: root, Socket: filepath.Join(root, "s"), Binary: self, Args: []string{"--run-root", root}}
	t.Cleanup(func() {
		if c, err := net.Dial("unix", e.Socket); err == nil {
			c.Write([]byte("end"))
			c.Read(make([]byte, 1)) // until it has ended
			c.Close()
		}
	})
	return e
}

func TestStart(t *testing.T) {
	e := newTestEngine(t, "listen")
	if err := e.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !e.listens() {
		t.Error("nobody listens")
	}
	text, err := os.ReadFile(filepath.Join(e.RunRoot, "started"))
	if want := "--auto --run-root " + e.RunRoot + " session=true\n"; err != nil || string(text) != want {
		t.Errorf("started as %q, %v, want %q", text, err, want)
	}
}

func TestStartOnce(t *testing.T) {
	e := newTestEngine(t, "listen")
	var all sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		all.Go(func() { errs[i] = e.Start(context.Background()) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(e.RunRoot, "started"))
	if err != nil || strings.Count(string(text), "\n") != 1 {
		t.Errorf("started %q, %v, want once", text, err)
	}
}

func TestStartAfterCrash(t *testing.T) {
	e := newTestEngine(t, "listen")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: e.Socket}); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if e.listens() {
		t.Fatal("a socket nobody listens at is taken for an engine")
	}
	if err := e.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestStartFails(t *testing.T) {
	e := newTestEngine(t, "fail")
	if err := os.WriteFile(filepath.Join(e.RunRoot, logName), []byte("an old line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := e.Start(context.Background())
	var failed *Error
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "exit status 3") {
		t.Fatalf("%#v", err)
	}
	if got := strings.Join(failed.LastLines(3), ","); got != "line 6,line 7,line 8" {
		t.Errorf("last lines %q", got)
	}
	if got := failed.LastLines(100); len(got) != 9 || got[0] != "line 0" {
		t.Errorf("all lines %q", got)
	}
}

func TestStartHangs(t *testing.T) {
	e := newTestEngine(t, "hang")
	alive := filepath.Join(e.RunRoot, "alive")
	if err := unix.Mkfifo(alive, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(alive, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err = e.Start(ctx)
	var failed *Error
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "does not listen at "+e.Socket) {
		t.Errorf("%v", err)
	}
}

func TestNoBinary(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	e := Engine{RunRoot: t.TempDir()}
	if err := e.Start(context.Background()); err == nil || !strings.Contains(err.Error(), "no berthd beside berth or in PATH") {
		t.Errorf("%v", err)
	}
}
