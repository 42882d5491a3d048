package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain lets the test's program take the other parts: Run starts it again.
func TestMain(m *testing.M) {
	switch CurrentRole() {
	case Init:
		code, err := RunInit()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	case Inside:
		if err := act(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// act is what the tests do inside.
func act(what string) error {
	s := Current()
	if what == "hang" {
		hangs, err := os.OpenFile(filepath.Join(s.Work, "hangs"), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer hangs.Close()
		return unix.Pause()
	}
	if what == "fail" {
		return errors.New("as told")
	}
	layout, err := FindLayout()
	if err != nil {
		return err
	}
	a, err := s.NewAccount(layout, "candidate")
	if err != nil {
		return err
	}
	// What a careless engine does: it writes everywhere and leaves processes.
	for _, file := range []string{"/run/leftover", "/etc/leftover", "/dev/shm/leftover", filepath.Join(s.Work, "leftover")} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return err
		}
	}
	idle := exec.Command("sleep", "1000")
	if err := idle.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(a.Commands(), fmt.Appendf(nil, "%d", idle.Process.Pid), 0); err != nil {
		return err
	}
	if pids, err := a.Processes(); err != nil || !slices.Contains(pids, idle.Process.Pid) {
		return fmt.Errorf("processes of the account are %v, %v", pids, err)
	}
	if used, err := a.Usage(); err != nil || used < 0 {
		return fmt.Errorf("usage %v, %w", used, err)
	}
	links, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return err
	}
	if strings.Count(string(links), ":") != 1 || !strings.Contains(string(links), "lo:") {
		return fmt.Errorf("links are %s", links)
	}
	return writeNamespaces(filepath.Join(s.Work, "namespaces"))
}

// writeNamespaces lists the namespaces this process is in.
func writeNamespaces(file string) error {
	var names []string
	for _, kind := range []string{"mnt", "net", "pid"} {
		name, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	return os.WriteFile(file, []byte(strings.Join(names, " ")), 0o600)
}

func newStage(t *testing.T) Stage {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for namespaces and cgroups")
	}
	s, err := New("/var/tmp")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkGone fails when something of the stage is left.
func checkGone(t *testing.T, s Stage) {
	t.Helper()
	left := []string{s.Work, "/run/leftover", "/etc/leftover", "/dev/shm/leftover"}
	mounts, err := cgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		left = append(left, filepath.Join(m.dir, s.Base))
	}
	for _, path := range left {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left (%v)", path, err)
		}
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), s.Work) {
		t.Errorf("a mount of %s is left:\n%s", s.Work, text)
	}
}

func TestNothingIsLeft(t *testing.T) {
	s := newStage(t)
	if err := s.Run(t.Context(), []string{"work"}); err != nil {
		t.Error(err)
	}
	inside, err := os.ReadFile(filepath.Join(s.Work, "namespaces"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "namespaces")
	if err := writeNamespaces(file); err != nil {
		t.Fatal(err)
	}
	outside, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(inside)) {
		if strings.Contains(string(outside), name) {
			t.Errorf("the namespace %s is shared with the host", name)
		}
	}
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
	checkGone(t, s)
}

func TestFailureComesOut(t *testing.T) {
	s := newStage(t)
	var exit *exec.ExitError
	if err := s.Run(t.Context(), []string{"fail"}); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("error %v, want exit status 3", err)
	}
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
	checkGone(t, s)
}

func TestEndsWithItsContext(t *testing.T) {
	s := newStage(t)
	fifo := filepath.Join(s.Work, "hangs")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, []string{"hang"}) }()
	hangs, err := os.Open(fifo) // returns when the other end is open
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	cancel(stopped)
	if err := <-ended; !errors.Is(err, stopped) {
		t.Errorf("error %v, want %v", err, stopped)
	}
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
	checkGone(t, s)
}
