//go:build amd64

package fault

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// parent is the cgroup of all containers of these tests.
const parent = "/berth-oci-fault"

// host is what must be the same before and after: mounts, cgroups, the files of
// the state root and of the bundle.
func host(t *testing.T, dirs ...string) string {
	t.Helper()
	var b strings.Builder
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		for _, dir := range append(dirs, parent) {
			if strings.Contains(line, dir) {
				b.WriteString(line)
			}
		}
	}
	for _, dir := range append(cgroupDirs(t), dirs...) {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || strings.HasPrefix(dir, "/sys/") && !e.IsDir() {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			size := info.Size()
			if e.IsDir() {
				size = 0
			}
			_, err = fmt.Fprintln(&b, path, info.Mode(), size)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// cgroupDirs are the directories of the parent cgroup in all hierarchies.
func cgroupDirs(t *testing.T) []string {
	t.Helper()
	var dirs []string
	for _, pattern := range []string{"/sys/fs/cgroup" + parent, "/sys/fs/cgroup/*" + parent} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, found...)
	}
	return dirs
}

// difference is the lines of b that are not in a, and the other way round.
func difference(a, b string) string {
	var out []string
	for _, d := range []struct{ sign, in, from string }{{"+ ", a, b}, {"- ", b, a}} {
		for line := range strings.Lines(d.from) {
			if !strings.Contains("\n"+d.in, "\n"+line) {
				out = append(out, d.sign+line)
			}
		}
	}
	return strings.Join(out, "")
}

// adopt makes this process the parent of every process a killed command leaves.
func adopt(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
}

// orphans reaps the processes that were left, and says which of them do not end
// by themselves.
func orphans(t *testing.T) (alive []string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		left := children(t)
		if len(left) == 0 {
			return alive
		}
		if time.Now().After(deadline) && alive == nil {
			for _, pid := range left {
				name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				alive = append(alive, fmt.Sprintf("%d %s", pid, strings.ReplaceAll(string(name), "\x00", " ")))
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		for _, pid := range left {
			// One of them may be waiting until another is reaped.
			if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil {
				t.Errorf("reap %d: %v", pid, err)
			}
		}
	}
}

// reapUntil reaps orphans until the command pid has ended, as a host's init does:
// a container whose processes nobody reaps cannot end.
func reapUntil(t *testing.T, command int) {
	t.Helper()
	fd, err := unix.PidfdOpen(command, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1)
		if n > 0 {
			return
		}
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		for _, pid := range children(t) {
			if pid != command {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // it may not have ended
			}
		}
	}
}

// children are this process's.
func children(t *testing.T) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, text := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}
