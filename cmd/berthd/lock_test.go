package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLockOfTheDead: a daemon that was killed while it started a program leaves the
// lock with that program for a moment. The next daemon waits for it.
func TestLockOfTheDead(t *testing.T) {
	root := t.TempDir()
	dead := exec.Command("/bin/true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "berthd.pid")
	if err := os.WriteFile(path, fmt.Appendln(nil, dead.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	heir, err := os.Open(path)
	if err == nil {
		err = unix.Flock(int(heir.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	locked := make(chan error, 1)
	go func() {
		file, err := lockRoot("run root", root)
		if err == nil {
			err = file.Close()
		}
		locked <- err
	}()
	for !waited(t) {
		select {
		case err := <-locked:
			t.Fatalf("nobody waited: %v", err)
		default:
			runtime.Gosched()
		}
	}
	if err := errors.Join(heir.Close(), <-locked); err != nil {
		t.Error(err)
	}
}

// waited says whether this process waits for a lock (proc_locks(5)).
func waited(t *testing.T) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) > 5 && string(f[1]) == "->" && string(f[5]) == fmt.Sprint(os.Getpid()) {
			return true
		}
	}
	return false
}
