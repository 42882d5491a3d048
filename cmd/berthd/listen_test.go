package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
)

// TestUnixSocket: mode and owner are right, a stale socket is replaced, a file
// is not, and nothing is left.
func TestUnixSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "run", "berth.sock")
	for range 2 { // the second time over what a killed daemon left
		s, err := bindSockets(&config{Hosts: []string{"unix://" + path}, Group: ""})
		if err != nil {
			t.Fatal(err)
		}
		open, err := s.open()
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != os.ModeSocket|0o660 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if len(open) != 1 || s.names()[0] != "unix://"+path {
			t.Errorf("open %v, names %v", open, s.names())
		}
		open[0].Close() // as if killed: the name stays
		t.Cleanup(s.close)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left beside the socket: %v", entries)
	}

	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bindSockets(&config{Hosts: []string{"unix://" + file}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.open(); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("listening on a file: %v", err)
	}
	s.close()
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

// TestSocketGroup: an unknown group is an error only when it was asked for.
func TestSocketGroup(t *testing.T) {
	if _, err := socketGroup("no-such-group-here"); err == nil {
		t.Error("unknown group was taken")
	}
	if gid, err := socketGroup("root"); err != nil || gid != 0 {
		t.Error(gid, err)
	}
	if _, err := socketGroup(""); err != nil {
		t.Error(err)
	}
}

// TestOneDaemonPerRoot: the second one is told whose the root is.
func TestOneDaemonPerRoot(t *testing.T) {
	dir := t.TempDir()
	cfg := &config{RunRoot: filepath.Join(dir, "run"), StateRoot: filepath.Join(dir, "state"), PidFile: filepath.Join(dir, "pid")}
	locks, err := lockRoots(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(cfg.PidFile); err != nil || string(text) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("pid file %q, %v", text, err)
	}
	others := []*config{
		{RunRoot: cfg.RunRoot, StateRoot: filepath.Join(dir, "state2")},
		{RunRoot: filepath.Join(dir, "run2"), StateRoot: cfg.StateRoot},
	}
	for _, other := range others {
		_, err := lockRoots(other)
		if !errors.Is(err, errRunning) || !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d uses ", os.Getpid())) {
			t.Errorf("second daemon: %v", err)
		}
	}
	if err := locks.release(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(cfg.PidFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pid file after the end: %v", err)
	}
	for _, other := range append(others, cfg) {
		locks, err := lockRoots(other)
		if err != nil {
			t.Fatal(err)
		}
		if err := locks.release(); err != nil {
			t.Error(err)
		}
	}
}

// TestNotify: the state reaches the socket in NOTIFY_SOCKET, and the variable
// nobody else.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	n := takeNotifySocket()
	if os.Getenv("NOTIFY_SOCKET") != "" {
		t.Error("the variable is still there")
	}
	if err := n.send("READY=1"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 64)
	if k, err := conn.Read(got); err != nil || string(got[:k]) != "READY=1" {
		t.Errorf("%q, %v", got[:k], err)
	}
	if err := notifySocket("").send("READY=1"); err != nil {
		t.Error(err)
	}
}
