package docker_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHeld: what holds one request up for ever holds up nobody else, and who has
// asked for it can give up. There is a container beside all of it.
func TestHeld(t *testing.T) {
	d := newDaemon(t)
	d.importBusybox(t)
	h := &held{daemon: d, api: newAPI(t, d.socket()), other: d.run(t, "--name", "other", "busybox", "sleep", "1000")}
	for _, test := range []struct {
		name string
		run  func(*held, *testing.T)
	}{
		{"create", (*held).create},
		{"start", (*held).start},
		{"files", (*held).files},
		{"pull", (*held).pull},
		{"keeper", (*held).keeper},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(h, t) })
	}
}

// held is a daemon with requests that hang.
type held struct {
	*daemon
	api   *api
	other string
}

// FUSE's greeting, of linux/fuse.h.
const (
	fuseInit       = 26
	fuseHeaderSize = 16
	fuseInitSize   = 64
	fuseMajor      = 7
	fuseMinor      = 31
	// Without it who looks up a name waits, where no signal reaches it, for who looks
	// up another in that directory.
	fuseParallelLookups = 1 << 18
)

// deaf mounts a file system at dir whose server greets the kernel and reads nothing
// after that. done ends it, and with it all who wait.
func deaf(t *testing.T, dir string) (done func()) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs FUSE: %v", err)
	}
	options := "fd=" + strconv.Itoa(fd) + ",rootmode=40000,user_id=0,group_id=0,allow_other"
	if err := unix.Mount("deaf", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		t.Fatal(err)
	}
	ended := false
	done = func() {
		if !ended {
			ended = true
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			unix.Close(fd)
		}
	}
	t.Cleanup(done)
	request := make([]byte, 64<<10)
	if n, err := unix.Read(fd, request); err != nil || n < 16 || binary.NativeEndian.Uint32(request[4:]) != fuseInit {
		t.Fatalf("the kernel's greeting: %d bytes, %v", n, err)
	}
	answer := make([]byte, fuseHeaderSize+fuseInitSize)
	binary.NativeEndian.PutUint32(answer[0:], uint32(len(answer)))
	copy(answer[8:16], request[8:16]) // unique
	binary.NativeEndian.PutUint32(answer[16:], fuseMajor)
	binary.NativeEndian.PutUint32(answer[20:], fuseMinor)
	binary.NativeEndian.PutUint32(answer[28:], fuseParallelLookups)
	binary.NativeEndian.PutUint32(answer[36:], 4096) // max_write
	if _, err := unix.Write(fd, answer); err != nil {
		t.Fatal(err)
	}
	return done
}

// hangs begins a docker command, and returns when it is an operation that waits for
// what. giveUp kills the client.
func (h *held) hangs(t *testing.T, kind, what string, args ...string) (id string, giveUp func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := h.command(ctx, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	giveUp = func() { cancel(); _ = cmd.Wait() }
	t.Cleanup(giveUp)
	h.until(t, kind+" waits for "+what, func() bool {
		id = h.waiting(t, kind, what)
		return id != ""
	})
	return id, giveUp
}

// waiting is the id of an operation of that kind that waits for what.
func (h *held) waiting(t *testing.T, kind, what string) string {
	t.Helper()
	text, err := h.api.raw(t.Context(), "GET", "/berth/operations", nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ ID, Kind, WaitingFor string }
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, o := range list {
		if o.Kind == kind && strings.Contains(o.WaitingFor, what) {
			return o.ID
		}
	}
	return ""
}

// ended waits until no operation of the kind is left.
func (h *held) ended(t *testing.T, kind string) {
	t.Helper()
	h.until(t, "the end of "+kind, func() bool { return h.waiting(t, kind, "") == "" })
}

func (h *held) until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
	}
}

// goesOn does with another container, and with the lists, what must not wait.
func (h *held) goesOn(t *testing.T) {
	t.Helper()
	h.answers(t, h.other, "running")
	expect(t, "exec in another", h.ok(t, "exec", h.other, "echo", "hi"), "hi")
	expect(t, "another run", h.ok(t, "run", "--rm", "--network", "none", "busybox", "echo", "ahoy"), "ahoy")
	h.ok(t, "images", "-q")
	h.ok(t, "volume", "ls", "-q")
	h.ok(t, "info")
}

// create is of a container whose volume is on a file server that does not answer.
func (h *held) create(t *testing.T) {
	dir := t.TempDir()
	done := deaf(t, dir)
	id, _ := h.hangs(t, "container create", dir, "create", "--name", "made", "-v", filepath.Join(dir, "x")+":/x", "busybox")
	h.goesOn(t)
	if _, err := h.api.raw(t.Context(), "DELETE", "/berth/operations/"+id, nil); err != nil {
		t.Error(err)
	}
	h.ended(t, "container create")
	expect(t, "containers", h.ok(t, "ps", "-aq", "--filter", "name=made"), "")
	done()
}

// start: the file server has stopped answering meanwhile.
func (h *held) start(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.ok(t, "create", "--name", "made", "--network", "none", "-v", filepath.Join(dir, "x")+":/x", "busybox", "sleep", "1000")
	done := deaf(t, dir)
	_, giveUp := h.hangs(t, "container start", "process to be made", "start", "made")
	h.goesOn(t)
	giveUp()
	h.until(t, "the start's end", func() bool {
		return h.inspect(t, "made", ".State.Status") == "created" && h.waiting(t, "container start", "") == ""
	})
	if text := h.inspect(t, "made", ".State.Error"); !strings.Contains(text, "was called off") {
		t.Errorf("why it does not run: %q", text)
	}
	h.ok(t, "rm", "-f", "made")
	h.goesOn(t)
	done()
}

// files are those of a running container's volume, below which a file server is
// mounted.
func (h *held) files(t *testing.T) {
	dir := t.TempDir()
	server := filepath.Join(dir, "server")
	if err := os.Mkdir(server, 0o755); err != nil {
		t.Fatal(err)
	}
	done := deaf(t, server)
	h.ok(t, "create", "--name", "made", "--network", "none", "-v", dir+":/x", "busybox", "sleep", "1000")
	h.ok(t, "start", "made")
	_, giveUp := h.hangs(t, "container archive", "file system of /x/server/file", "cp", "made:/x/server/file", t.TempDir())
	exec := h.command(t.Context(), "exec", "made", "ls", "/x/server/other") // not what is copied: the kernel lets only one look a name up
	if err := exec.Start(); err != nil {
		t.Fatal(err)
	}
	h.goesOn(t)
	expect(t, "status", h.inspect(t, "made", ".State.Status"), "running")
	expect(t, "exec beside them", h.ok(t, "exec", "made", "echo", "hi"), "hi")
	giveUp()
	h.ended(t, "container archive")
	h.ok(t, "rm", "-f", "made")
	_ = exec.Wait() // its container has ended
	h.goesOn(t)
	done()
}

// pull is from a registry that does not answer.
func (h *held) pull(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	name := silent.Addr().String() + "/image"
	_, giveUp := h.hangs(t, "image pull", "", "pull", name)
	h.goesOn(t)
	h.ok(t, "tag", "busybox", "other:tag")
	h.ok(t, "rmi", "other:tag")
	giveUp()
	h.ended(t, "image pull")
}

// keeper: it stands still. What is known without it is answered, and a start ends
// with its client.
func (h *held) keeper(t *testing.T) {
	h.ok(t, "create", "--name", "made", "--network", "none", "busybox", "sleep", "1000")
	pid, err := strconv.Atoi(h.keeperPid(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() { _ = unix.Kill(pid, unix.SIGCONT) }
	t.Cleanup(goOn)
	_, giveUp := h.hangs(t, "container start", "process to be made", "start", "made")
	h.answers(t, h.other, "running")
	h.ok(t, "images", "-q")
	h.ok(t, "info")
	giveUp()
	h.ended(t, "container start")
	goOn()
	h.goesOn(t)
	expect(t, "what did not start", h.inspect(t, "made", ".State.Status"), "created")
	h.ok(t, "rm", "made")
}
