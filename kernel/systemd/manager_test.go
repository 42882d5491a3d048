package systemd

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
)

// connect reaches the user's manager in a session of a user, even as root of a
// user namespace, and else the system's.
func connect(t *testing.T) (*Conn, bool) {
	t.Helper()
	user := os.Geteuid() != 0 || os.Getenv("XDG_RUNTIME_DIR") != ""
	socket, err := busSocket(user, os.Getenv)
	if err == nil {
		_, err = os.Stat(socket)
	}
	if err != nil {
		if _, cerr := Connect(user); !errors.Is(cerr, errdefs.ErrUnsupported) || errdefs.Hint(cerr) == "" {
			t.Errorf("without systemd: %v, want an error that says so", cerr)
		}
		t.Skipf("this host has no systemd: %v", err)
	}
	c, err := Connect(user)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, user
}

// TestScopeOfAProcess: from a process beside us to one in a scope with limits,
// and back to nothing.
func TestScopeOfAProcess(t *testing.T) {
	c, user := connect(t)
	s, err := ParsePath("berth-test.slice:berth:manager", user)
	if err != nil {
		t.Fatal(err)
	}
	path, err := c.CgroupPath(s)
	if err != nil || !strings.HasSuffix(path, "/berth.slice/berth-test.slice/berth-manager.scope") {
		t.Fatalf("cgroup %q, %v", path, err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limits, err := Limits("memory.max", "67108864")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(s, "a test", cmd.Process.Pid, limits); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(s, "a test", cmd.Process.Pid, nil); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("the same scope again: %v, want a conflict", err)
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "cgroup"))
	if err != nil || strings.TrimSpace(string(b)) != "0::"+path {
		t.Errorf("the process is in %q (%v), want %s", b, err, path)
	}
	holds := func(want string) {
		t.Helper()
		b, err := os.ReadFile("/sys/fs/cgroup" + path + "/memory.max")
		if got := strings.TrimSpace(string(b)); err != nil || got != want {
			t.Errorf("memory.max is %q (%v), want %q", got, err, want)
		}
	}
	holds("67108864")
	if limits, err = Limits("memory.max", "max"); err != nil {
		t.Fatal(err)
	}
	if err := c.Set(s, limits); err != nil {
		t.Error(err)
	}
	holds("max")
	if err := c.Set(s, []Property{number("NoSuchLimit", 1)}); err == nil {
		t.Error("a property that does not exist was set")
	}
	for range 2 { // the second finds nothing
		if err := c.Stop(s); err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("the process ended with %v", err)
	}
	if _, err := os.Stat("/sys/fs/cgroup" + path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cgroup is left (%v)", err)
	}
}
