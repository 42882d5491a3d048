package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestPidFile(t *testing.T) {
	dir := t.TempDir()
	path, tmp, victim := filepath.Join(dir, "pid"), filepath.Join(dir, ".pid.new"), filepath.Join(dir, "victim")
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	// An older one is replaced, one that was interrupted is no hindrance, and a link
	// in its place leads nowhere.
	if err := errors.Join(os.WriteFile(path, []byte("old, and longer"), 0o644), os.WriteFile(victim, []byte("victim"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, prepare := range []func() error{
		func() error { return nil },
		func() error { return os.WriteFile(tmp, []byte("interrupted"), 0o644) },
		func() error { return os.Symlink(victim, tmp) },
		func() error { return os.Symlink(filepath.Join(dir, "nonexistent"), tmp) },
	} {
		if err := prepare(); err != nil {
			t.Fatal(err)
		}
		if err := writePidFile(path, 4711); err != nil {
			t.Fatal(err)
		}
		if got := read(path); got != "4711" {
			t.Errorf("pid file has %q", got)
		}
	}
	if got := read(victim); got != "victim" {
		t.Errorf("a link was followed: %q", got)
	}
	// Nothing is left where it cannot be had.
	if err := writePidFile(filepath.Join(dir, "no/dir"), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "taken/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writePidFile(filepath.Join(dir, "taken"), 1); err == nil {
		t.Error("a directory was replaced")
	}
	if _, err := os.Lstat(filepath.Join(dir, ".taken.new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the new file is left: %v", err)
	}
}
