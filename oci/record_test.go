package oci

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
)

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "A_b+c-d.9": true, "-x": true, "+": true, strings.Repeat("x", 1024): true,
		"": false, ".": false, "..": false, ".x": false, "a/b": false, "../a": false, "/a": false, "a b": false, "a\n": false,
		"a\x00": false, "ä": false, "a:b": false, "a%2fb": false, "a\\b": false, "*": false, strings.Repeat("x", 1025): false,
	} {
		if err := CheckID(id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
		if ok {
			continue
		}
		s := &Store{Root: t.TempDir()}
		if _, err := s.New(id, "/", nil); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("New %q: %v", id, err)
		}
		if _, err := s.Open(id); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("Open %q: %v", id, err)
		}
	}
}

// recorded is a container with a record, of a process that does not belong to it
// unless the test says so.
func recorded(t *testing.T, s *Store, id string, pid int, started uint64) {
	t.Helper()
	c, err := s.New(id, "/bundle", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	c.Pid, c.Started = pid, started
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// An interrupted creation leaves a directory without a record: its id must not be
// taken for ever.
func TestInterruptedCreationLeavesTheIDFree(t *testing.T) {
	s := &Store{Root: t.TempDir()}
	for _, files := range [][]string{{"x/", ""}, {"x/config.json", "{"}, {"x/config.json", "{}", "x/state.json.new", `{"id":`}} {
		write(t, s.Root, files...)
		if _, err := s.Open("x"); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%v: open: %v", files, err)
		}
		if left := entries(t, s.Root); len(left) > 0 {
			t.Errorf("%v: after opening %v is left", files, left)
		}
		write(t, s.Root, files...)
		recorded(t, s, "x", 0, 0)
		if _, err := s.New("x", "/", nil); !errors.Is(err, errdefs.ErrConflict) {
			t.Errorf("%v: a second container of that id: %v", files, err)
		}
		c, err := s.Open("x")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	}
}

// Many create, find and delete the same id at once: only one has it at a time.
func TestOneHolderOfAnID(t *testing.T) {
	s := &Store{Root: t.TempDir()}
	var holders, made atomic.Int32
	hold := func() {
		if n := holders.Add(1); n != 1 {
			t.Errorf("%d hold the container at once", n)
		}
	}
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range 200 {
				c, err := s.New("x", "/bundle", []byte("{}"))
				switch {
				case err == nil:
					hold()
					made.Add(1)
					if err := c.save(); err != nil {
						t.Error(err)
					}
					holders.Add(-1)
					c.Close()
				case !errors.Is(err, errdefs.ErrConflict):
					t.Error(err)
				}
				c, err = s.Open("x")
				switch {
				case err == nil:
					hold()
					holders.Add(-1)
					if err := c.Remove(); err != nil {
						t.Error(err)
					}
				case !errors.Is(err, errdefs.ErrNotFound):
					t.Error(err)
				}
			}
		}()
	}
	all.Wait()
	if n := made.Load(); n < 8 {
		t.Errorf("only %d were made", n)
	}
	if left := entries(t, s.Root); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestDamagedRecords(t *testing.T) {
	s := &Store{Root: t.TempDir()}
	for _, state := range []string{
		"", "{", `{"id":"x","bundle":"/b","pid":7,"startT`, "null", "[]", "{}", `{"id":"y","bundle":"/b","pid":7}`,
		`{"id":"x","bundle":"/b","pid":-1}`, `{"id":"x","bundle":"/b","pid":"7"}`, "\x00\x00\x00\x00",
	} {
		write(t, s.Root, "x/state.json", state, "x/config.json", "{}")
		_, err := s.Open("x")
		if err == nil || !strings.HasPrefix(err.Error(), "record of container x: "+s.Root+"/x/state.json: ") || errdefs.Hint(err) == "" {
			t.Errorf("%q: %v, hint %q", state, err, errdefs.Hint(err))
		}
		if errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%q: %v counts as not found", state, err)
		}
		if _, err := s.New("x", "/", nil); !errors.Is(err, errdefs.ErrConflict) {
			t.Errorf("%q: a second container of that id: %v", state, err)
		}
	}
}

// bystander is a process that nobody may signal.
func bystander(t *testing.T) (pid int, started uint64, alive func() bool) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed
	})
	started, _, err := procStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, started, func() bool {
		_, ended, err := procStat(cmd.Process.Pid)
		return err == nil && !ended
	}
}

// The recorded process has ended and another has its number.
func TestRecycledPid(t *testing.T) {
	pid, started, alive := bystander(t)
	s := &Store{Root: t.TempDir()}
	for i, then := range []uint64{started - 1, started + 1, 0} {
		id := fmt.Sprint("x", i)
		recorded(t, s, id, pid, then)
		c, err := s.Open(id)
		if err != nil {
			t.Fatal(err)
		}
		if st := c.Status(); st != "stopped" {
			t.Errorf("status %s, want stopped", st)
		}
		for _, all := range []bool{false, true} {
			if err := c.Kill(unix.SIGKILL, all); !all && !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("kill: %v", err)
			}
		}
		if _, err := c.Exec(nil, nil, nil, ExecOptions{}); !errors.Is(err, errdefs.ErrConflict) {
			t.Errorf("exec: %v", err)
		}
		if err := c.Delete(true); err != nil {
			t.Error(err)
		}
	}
	if !alive() {
		t.Error("the process with the container's old number was killed")
	}
}

// Where a container has no mount namespace an exec finds its root by its first
// process's number.
func TestExecEntersNoRecycledProcess(t *testing.T) {
	needRoot(t)
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := os.NewFile(uintptr(fd), "pidfd")
	defer ended.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	pid, _, _ := bystander(t)
	s := specFor("/nonexistent", "true")
	s.Linux.Namespaces = nil
	_, err = runner(t).Exec(&ExecRequest{InitPid: pid, InitPidfd: ended, Spec: s, Process: s.Process})
	if !errors.Is(err, unix.ESRCH) || !strings.HasPrefix(err.Error(), "open root of the container: ") {
		t.Errorf("%v", err)
	}
}

// What has ended but was not reaped is not running; what lost only its first
// thread is.
func TestEndedIsNotRunning(t *testing.T) {
	s := &Store{Root: t.TempDir()}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() //nolint:errcheck // it succeeds
	started, _, err := procStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	// Waits for the end without reaping.
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	recorded(t, s, "zombie", cmd.Process.Pid, started)
	c, err := s.Open("zombie")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if st := c.Status(); st != "stopped" {
		t.Errorf("status %s, want stopped", st)
	}
	if err := c.Kill(unix.SIGTERM, false); !errors.Is(err, errdefs.ErrNotFound) || err.Error() != "container zombie: container not running" {
		t.Errorf("kill: %v", err)
	}
}

func TestFirstThreadEnded(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "main.c", `
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *rest(void *p) { puts("on"); fflush(stdout); pause(); return p; }
int main(void) { pthread_t t; pthread_create(&t, 0, rest, 0); pthread_exit(0); }
`)
	if out, err := exec.Command("gcc", "-pthread", "-o", dir+"/main", dir+"/main.c").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(dir + "/main")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for { // the first thread is about to end
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), ") Z ") {
			break
		}
	}
	started, ended, err := procStat(cmd.Process.Pid)
	if err != nil || ended {
		t.Errorf("ended %t, %v", ended, err)
	}
	c := &Container{record: record{ID: "x", Pid: cmd.Process.Pid, Started: started}}
	if !c.alive() {
		t.Error("a process whose first thread has ended counts as ended")
	}
}

// A state directory that cannot be written: an error that says so, and nothing
// left.
func TestStateDirectoryIsFull(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	for name, options := range map[string]string{"full": "size=4k", "no inodes": "nr_inodes=2", "read-only": "ro"} {
		t.Run(name, func(t *testing.T) {
			if err := unix.Mount("tmpfs", root, "tmpfs", 0, strings.TrimPrefix(options, "ro")); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(root, 0); err != nil {
					t.Error(err)
				}
			}()
			switch name {
			case "full":
				write(t, root, "fill", strings.Repeat("x", 4096))
			case "read-only":
				if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
					t.Fatal(err)
				}
			}
			_, err := (&Store{Root: root}).New("x", "/", []byte("{}"))
			if err == nil || !strings.Contains(err.Error(), root) {
				t.Errorf("%v", err)
			}
			if _, err := os.Stat(filepath.Join(root, "x")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the directory is left (%v)", err)
			}
		})
	}
}

// A created container whose process is killed before or while it is started.
func TestKilledWhileItWaits(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"before", "held", "reaped"} {
		t.Run(name, func(t *testing.T) {
			c, err := (&Store{Root: t.TempDir()}).New("waiting", t.TempDir(), []byte("{}"))
			if err != nil {
				t.Fatal(err)
			}
			pr, err := c.Launch(runner(t), specFor(rootfs(t), "true"), LaunchOptions{Wait: true})
			if err != nil {
				t.Fatal(err)
			}
			defer pr.Close()
			switch name {
			case "before":
				_ = pr.Signal(unix.SIGKILL)
				pr.awaitEnd()
				if err := c.Start(); err == nil || err.Error() != "container waiting is stopped, not created" {
					t.Errorf("start: %v", err)
				}
			case "held": // it dies with the byte unread
				if err := errors.Join(c.Pause(), pr.Signal(unix.SIGKILL)); err != nil {
					t.Fatal(err)
				}
				started := make(chan error)
				go func() { started <- c.release() }()
				if err := c.withGroup((*cgroup.Group).Thaw); err != nil {
					t.Fatal(err)
				}
				if err := <-started; !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "was killed before its command ran") {
					t.Errorf("start: %v", err)
				}
			case "reaped":
				pr.abandon()
				if err := c.release(); !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "was killed before its command ran") {
					t.Errorf("start: %v", err)
				}
			}
			_ = pr.abandon()
			if err := c.Delete(true); err != nil {
				t.Error(err)
			}
			if err := cgroup.RemoveEmpty("/berth-oci-test"); err != nil {
				t.Error(err)
			}
		})
	}
}

// awaitEnd waits for the process without reaping it.
func (pr *Process) awaitEnd() {
	for unix.Waitid(unix.P_PID, pr.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}
