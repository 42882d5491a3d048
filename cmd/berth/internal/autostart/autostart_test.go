package autostart

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A descriptor that whoever called us left open must not live on in the engine:
// with it a lock would stay taken and a pipe without an end.
func TestEngineInheritsNoDescriptors(t *testing.T) {
	dir := t.TempDir()
	seen := filepath.Join(dir, "seen")
	binary := filepath.Join(dir, "berthd")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\nls -l /proc/$$/fd >"+seen+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	left, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	if _, err := unix.FcntlInt(left.Fd(), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	e := Engine{RunRoot: dir, Socket: filepath.Join(dir, "berth.sock"), Binary: binary}
	var failed *Error
	if err := e.Start(context.Background()); !errors.As(err, &failed) {
		t.Fatalf("an engine that ends at once: %v", err)
	}
	fds, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(fds), "berthd.log") || strings.Contains(string(fds), "/dev/zero") {
		t.Errorf("the engine's descriptors:\n%s", fds)
	}
}
