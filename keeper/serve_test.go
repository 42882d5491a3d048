package keeper

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

func TestMalformedRequestsEndOnlyTheirConnection(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "exec sleep 1000"))
	frame := func(major, files byte, size uint32, body string) string {
		header := []byte{'B', 'K', major, files, 0, 0, 0, 0}
		binary.BigEndian.PutUint32(header[4:], size)
		return string(header) + body
	}
	for name, c := range map[string]struct {
		sent, answer string
	}{
		"nothing":          {"", ""},
		"half a header":    {"BK\x01", "unexpected EOF"},
		"another protocol": {"GET / HTTP/1.1\r\n\r\n", `message begins with`},
		"another version":  {frame(9, 0, 2, "{}"), "peer speaks version 9"},
		"too large":        {frame(1, 0, 1<<31, ""), "the limit is"},
		"cut off":          {frame(1, 0, 100, "{"), "unexpected EOF"},
		"no JSON":          {frame(1, 0, 1, "x"), "decode request"},
		"missing files":    {frame(1, 2, 2, "{}"), "message with 0 files announces 2"},
		"no operation":     {frame(1, 0, 2, "{}"), `keeper operation \"\": not supported`},
		"unknown":          {frame(1, 0, 12, `{"op":"fly"}`), `keeper operation \"fly\": not supported`},
		"no body":          {frame(1, 0, 14, `{"op":"start"}`), "decode start request"},
		"wrong body":       {frame(1, 0, 25, `{"op":"start","body":[1]}`), "decode start request"},
		"no exec":          {frame(1, 0, 23, `{"op":"exec","body":{}}`), "exec has no process"},
		"no attach":        {frame(1, 0, 15, `{"op":"attach"}`), "decode attach request"},
		"attach to dots":   {frame(1, 0, 35, `{"op":"attach","id":"..","body":{}}`), `container id \"..\": invalid argument`},
	} {
		t.Run(name, func(t *testing.T) {
			conn := h.rawConn()
			if _, err := io.WriteString(conn, c.sent); err != nil {
				t.Fatal(err)
			}
			must(t, conn.CloseWrite())
			answer, err := io.ReadAll(conn)
			if err != nil && !errors.Is(err, unix.ECONNRESET) {
				t.Error(err)
			}
			if c.answer == "" && len(answer) > 0 || !strings.Contains(string(answer), c.answer) {
				t.Errorf("answer %q, want %q", answer, c.answer)
			}
		})
	}
	if s, err := h.Status(t.Context(), "a", ""); err != nil || s.Exited {
		t.Errorf("after all that: %+v, %v", s, err)
	}
}

func TestRequestFilesAreClosed(t *testing.T) {
	h := newHarness(t)
	before := h.keeperFiles()
	for range 10 {
		conn := h.rawConn()
		must(t, writeFrame(conn, &request{Op: "fly"}, os.Stderr, os.Stderr))
		_, err := receive(conn)
		if !errors.Is(err, errdefs.ErrUnsupported) {
			t.Error(err)
		}
		conn.Close()
	}
	h.until("files are closed", func() bool { return h.keeperFiles() <= before })
}

func TestClientOfAnotherVersion(t *testing.T) {
	conn, other := socketPair(t)
	go func() {
		readFrame(other)
		other.Write([]byte{'B', 'K', 2, 0, 0, 0, 0, 2, '{', '}'})
	}()
	must(t, writeFrame(conn, &request{Op: opHello}))
	_, err := receive(conn)
	err = explainVersion(explainLost(err))
	if !errors.Is(err, errdefs.ErrUnsupported) || errdefs.Hint(err) == "" {
		t.Errorf("error %v, hint %q", err, errdefs.Hint(err))
	}
}

func TestNoKeeper(t *testing.T) {
	root := t.TempDir()
	if _, err := Connect(t.Context(), ConnectOptions{Root: root}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("none: %v", err)
	}
	_, err := Connect(t.Context(), ConnectOptions{Root: root, Binary: filepath.Join(root, "none")})
	if !errors.Is(err, errdefs.ErrUnavailable) || errdefs.Hint(err) == "" {
		t.Errorf("no program: %v", err)
	}
	_, err = Connect(t.Context(), ConnectOptions{Root: root, Binary: "/bin/true"})
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "ended without a word") {
		t.Errorf("not a keeper: %v", err)
	}
}

// A keeper that cannot start says why.
func TestKeeperThatCannotStart(t *testing.T) {
	self, err := os.Executable()
	must(t, err)
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "keeper.sock", "x"), 0o700))
	_, err = Connect(t.Context(), ConnectOptions{
		Root: root, Binary: self, Env: []string{"KEEPER_TEST_RUNTIME=plain"},
	})
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "directory not empty") {
		t.Errorf("error %v", err)
	}
}

func TestSecondKeeperIsRefused(t *testing.T) {
	h := newHarness(t)
	err := Serve(t.Context(), ServeOptions{Root: h.root, Runtime: plainRuntime{}})
	if !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("second keeper: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	h := newHarness(t)
	must(t, syscall.Kill(h.Info().Pid, syscall.SIGKILL))
	<-h.Done()
	if _, err := h.List(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) || errdefs.Hint(err) == "" {
		t.Errorf("list from a dead keeper: %v", err)
	}
	h.Close()
	if _, err := os.Stat(filepath.Join(h.root, "keeper.sock")); err != nil {
		t.Fatal(err)
	}
	h.connect()
}

// The socket's path may be longer than an address holds.
func TestLongRoot(t *testing.T) {
	h := newHarness(t)
	h.expectKeeperEnds()
	h.options.Root = filepath.Join(h.root, strings.Repeat("long/", 30))
	h.connect()
	h.start(h.sh("a", "exit 0"))
	h.wait("a", "")
	must(t, h.Forget(t.Context(), "a", ""))
	h.expectKeeperEnds()
	h.options.Root = h.root
	h.connect()
}

func TestSocketMode(t *testing.T) {
	h := newHarness(t)
	info, err := os.Stat(filepath.Join(h.root, "keeper.sock"))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

// Exits nobody has taken note of do not keep the keeper, and are known to the
// next one.
func TestExitsSurviveTheKeeper(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "read x <"+fifo(t, h)+"; exit 6"))
	_, err := h.Exec(t.Context(), &ExecRequest{
		ContainerID: "a", ExecID: "x", Process: &specs.Process{Args: []string{"/bin/sh", "-c", "exit 7"}},
	})
	must(t, err)
	exec := h.wait("a", "x")
	must(t, os.WriteFile(filepath.Join(h.root, "fifo"), []byte("go\n"), 0))
	init := h.wait("a", "")
	h.expectKeeperEnds()
	h.connect()
	for _, want := range []Status{exec, init} {
		got, err := h.Status(t.Context(), want.ContainerID, want.ExecID)
		if err != nil || got != want {
			t.Errorf("after the keeper's end %+v, %v; before %+v", got, err, want)
		}
	}
	events, err := h.Events(t.Context())
	must(t, err)
	seen := map[Status]bool{<-events: true, <-events: true}
	if !seen[exec] || !seen[init] {
		t.Errorf("events %v", seen)
	}
}

func TestContainersOfAKilledKeeper(t *testing.T) {
	h := newHarness(t)
	pid := h.start(h.sh("a", "exec sleep 1000")).Pid
	must(t, syscall.Kill(h.Info().Pid, syscall.SIGKILL))
	<-h.Done()
	h.Close()
	syscall.Kill(pid, syscall.SIGKILL) // what the cgroup would be for
	h.connect()
	s, err := h.Status(t.Context(), "a", "")
	must(t, err)
	if !s.Exited || s.ExitCode != ExitCodeLost || s.Error == "" || s.StartedAt.IsZero() {
		t.Errorf("status %+v", s)
	}
}

// Told to end, the keeper ends its containers, and their exits are on disk.
func TestKeeperTerminated(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "trap 'echo bye; exit 8' TERM; echo ready; while :; do sleep 0.01; done"))
	stream := h.attach("a", "", AttachOptions{Stdout: true})
	h.until("the trap is set", func() bool { return len(readLog(t, h.logPath("a"))) > 0 })
	must(t, syscall.Kill(h.Info().Pid, syscall.SIGTERM))
	if out := readAll(t, stream); !strings.HasSuffix(out, "bye\n") {
		t.Errorf("output %q", out)
	}
	<-h.Done()
	h.Close()
	h.connect()
	if s, err := h.Status(t.Context(), "a", ""); err != nil || s.ExitCode != 8 {
		t.Errorf("status %+v, %v", s, err)
	}
}

func TestEvents(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("old", "exit 1"))
	h.wait("old", "")
	ctx, cancel := context.WithCancel(t.Context())
	events, err := h.Events(ctx)
	must(t, err)
	if s := <-events; s.ContainerID != "old" || s.ExitCode != 1 {
		t.Errorf("first event %+v", s)
	}
	for i := range 50 { // more than anybody has read
		h.start(h.sh(fmt.Sprint("new", i), "exit 2"))
	}
	seen := map[string]bool{}
	for len(seen) < 50 {
		s := <-events
		if !s.Exited || s.ExitCode != 2 {
			t.Errorf("event %+v", s)
		}
		seen[s.ContainerID] = true
	}
	cancel()
	for range events { // closed by the end of the context
	}
}

// When an exit is announced, its record is on disk and its output in the log.
func TestAnnouncedExitIsRecorded(t *testing.T) {
	h := newHarness(t)
	events, err := h.Events(t.Context())
	must(t, err)
	for i := range 30 {
		id := fmt.Sprint("c", i)
		h.start(h.sh(id, "seq 100; exit 3"))
		s := <-events
		recorded, err := readStatus(filepath.Join(h.root, "containers", id, "exit.json"))
		if err != nil || *recorded != s {
			t.Errorf("announced %+v, recorded %+v, %v", s, recorded, err)
		}
		checkNumbers(t, readLog(t, h.logPath(id)), 100)
	}
}

// When the records' filesystem is full a start fails and leaves nothing; an
// exit is announced all the same, and says what is missing.
func TestFullRecords(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	h := newHarness(t)
	h.expectKeeperEnds()
	dir := filepath.Join(h.root, "containers")
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	h.connect()
	h.start(h.sh("a", "exec sleep 1000"))
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the filesystem: %v", err)
	}
	if _, err := h.Start(t.Context(), h.sh("b", "exit 0")); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("start: %v", err)
	}
	must(t, h.Signal(t.Context(), "a", "", syscall.SIGTERM))
	if s := h.wait("a", ""); s.ExitCode != 143 || !strings.Contains(s.Error, "no space left") {
		t.Errorf("status %+v", s)
	}
	must(t, os.Remove(ballast))
	h.start(h.sh("b", "exit 0"))
	must(t, h.Forget(t.Context(), "a", ""))
	h.wait("b", "")
	must(t, h.Forget(t.Context(), "b", ""))
	h.expectKeeperEnds() // before the filesystem goes
	h.connect()
}

func TestManyStartsAtOnce(t *testing.T) {
	h := newHarness(t)
	const n = 200
	before := h.keeperFiles()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			id := fmt.Sprint("c", i)
			if _, err := h.Start(t.Context(), h.sh(id, fmt.Sprintf("seq 50; exit %d", i))); err != nil {
				t.Error(err)
				return
			}
			if s, err := h.Wait(t.Context(), id, ""); err != nil || s.ExitCode != i {
				t.Errorf("status %+v, %v", s, err)
			}
		})
	}
	all.Wait()
	for i := range n {
		id := fmt.Sprint("c", i)
		checkNumbers(t, readLog(t, h.logPath(id)), 50)
		must(t, h.Forget(t.Context(), id, ""))
	}
	h.until("all descriptors are released", func() bool { return h.keeperFiles() <= before })
}

// A request whose caller has given up is carried out.
func TestAbandonedRequest(t *testing.T) {
	h := newHarness(t)
	ctx, cancel := context.WithCancel(t.Context())
	conn := h.rawConn()
	body := `{"id":"a","spec":{"process":{"args":["/bin/sh","-c","exit 4"]},"linux":{}}}`
	must(t, writeFrame(conn, &request{Op: opStart, Body: []byte(body)}))
	must(t, conn.Close())
	h.until("the container is known", func() bool {
		_, err := h.Status(t.Context(), "a", "")
		return err == nil
	})
	if s := h.wait("a", ""); s.ExitCode != 4 {
		t.Errorf("status %+v", s)
	}
	cancel()
	if _, err := h.Wait(ctx, "a", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call: %v", err)
	}
}

func TestParseArgs(t *testing.T) {
	o, err := ParseArgs([]string{"--root", "/r", "--idle", "3s"})
	if err != nil || o.Root != "/r" || o.Idle != 3*time.Second || o.Notify != nil {
		t.Errorf("options %+v, %v", o, err)
	}
	for _, bad := range [][]string{{"--fly"}, {"extra"}, {"--idle", "x"}, {"--notify-fd", "x"}} {
		if _, err := ParseArgs(bad); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// brokenRuntime is one whose code is at fault, or that takes its time.
type brokenRuntime struct {
	plainRuntime
	begun chan string
	start chan struct{}
}

func (r brokenRuntime) Start(l *Launch) (*Launched, error) {
	switch l.ID {
	case "panic":
		panic("at the start")
	case "slow":
		r.begun <- l.ID
		<-r.start
		return nil, errors.New("too slow")
	case "late":
		r.begun <- l.ID
		<-r.start
	}
	return r.plainRuntime.Start(l)
}

func (r brokenRuntime) End(cgroup string) (Used, error) {
	if cgroup == "/panic" {
		panic("at the end")
	}
	return Used{}, nil
}

// serveHere runs a keeper in this process.
func serveHere(t *testing.T, r Runtime) *Client {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	root := t.TempDir()
	ours, theirs, err := os.Pipe()
	must(t, err)
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, ServeOptions{Root: root, Runtime: r, Notify: theirs, Log: discardLog()})
	}()
	if text := readAll(t, ours); text != notifyReady {
		t.Fatalf("keeper says %q", text)
	}
	ours.Close()
	c, err := Connect(t.Context(), ConnectOptions{Root: root})
	must(t, err)
	t.Cleanup(func() {
		c.Close()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("keeper: %v", err)
		}
	})
	return c
}

func plainRequest(id string) *StartRequest {
	return &StartRequest{ID: id, Spec: &specs.Spec{
		Process: &specs.Process{Args: []string{"/bin/sh", "-c", "exit 3"}},
		Linux:   &specs.Linux{CgroupsPath: "/" + id},
	}}
}

// A panic fails what it happened in and nothing else.
func TestPanicIsContained(t *testing.T) {
	c := serveHere(t, brokenRuntime{})
	if _, err := c.Start(t.Context(), plainRequest("panic")); err == nil || !strings.Contains(err.Error(), "at the start") {
		t.Errorf("start: %v", err)
	}
	if _, err := c.Status(t.Context(), "panic", ""); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("status: %v", err)
	}
	r := plainRequest("other")
	r.Spec.Linux.CgroupsPath = "/panic"
	_, err := c.Start(t.Context(), r)
	must(t, err)
	s, err := c.Wait(t.Context(), "other", "")
	if err != nil || s.ExitCode != 3 || !strings.Contains(s.Error, "at the end") {
		t.Errorf("status %+v, %v", s, err)
	}
}

// Who asks for a container that is being started gets the outcome.
func TestStatusWaitsForTheStart(t *testing.T) {
	r := brokenRuntime{start: make(chan struct{}), begun: make(chan string)}
	c := serveHere(t, r)
	asked := make(chan error)
	for _, id := range []string{"slow", "late"} {
		go c.Start(context.Background(), plainRequest(id))
		<-r.begun
		if list, err := c.List(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("list during the start: %+v, %v", list, err)
		}
		go func() {
			_, err := c.Status(context.Background(), id, "")
			asked <- err
		}()
		go func() {
			_, err := c.Wait(context.Background(), id, "")
			asked <- err
		}()
		r.start <- struct{}{}
		for range 2 {
			err := <-asked
			if id == "late" && err != nil || id == "slow" && !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("%s: %v", id, err)
			}
		}
	}
}

// TestKeeperWithoutItsDirectory: it ends as any other that has nothing to do, and
// leaves alone what another one has at the same place.
func TestKeeperWithoutItsDirectory(t *testing.T) {
	self, err := os.Executable()
	must(t, err)
	h := &harness{t: t, root: filepath.Join(t.TempDir(), "root")}
	h.options = ConnectOptions{Root: h.root, Binary: self, Idle: 50 * time.Millisecond}
	h.connect()
	must(t, os.RemoveAll(h.root))
	other := &harness{t: t, root: h.root, options: h.options}
	other.connect()
	if other.Info().Pid == h.Info().Pid {
		t.Fatal("a keeper without its directory was found")
	}
	h.expectKeeperEnds()
	_, err = other.List(t.Context())
	must(t, err)
	other.expectKeeperEnds()
}

// TestStopOfAnEndingKeeper: a keeper that is told to stop while it ends itself for
// want of work does not wait for the door that it has locked.
func TestStopOfAnEndingKeeper(t *testing.T) {
	p := place{t.TempDir()}
	must(t, p.make())
	s := &server{place: p, quit: make(chan *os.File, 1), processes: map[key]*process{}}
	s.endIfIdle()
	door, err := s.stop(t.Context())
	must(t, err)
	must(t, door.Close())
}
