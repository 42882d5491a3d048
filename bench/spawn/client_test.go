package spawn

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// start builds the spawner and starts one.
func start(t *testing.T, o Options) *Spawner {
	t.Helper()
	o.Binary = filepath.Join(t.TempDir(), "spawner")
	build := exec.Command("go", "build", "-o", o.Binary, "../spawner")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build spawner: %v: %s", err, out)
	}
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close spawner: %v", err)
		}
	})
	return s
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Options{Dir: dir, Env: []string{"SHIP=Passat"}})
	res, err := s.Run(t.Context(), "/bin/sh", "-c", `pwd; echo $SHIP >&2`)
	if err != nil {
		t.Fatal(err)
	}
	if want := dir + "\nPassat\n"; res.Output != want {
		t.Errorf("output %q, want %q", res.Output, want)
	}
	if res.Wall <= 0 || res.User+res.System <= 0 || res.PeakKiB <= 0 || res.MinorFaults <= 0 {
		t.Errorf("nothing was measured: %+v", res)
	}
	if res, err := s.Run(t.Context(), "/bin/sh", "-c", "echo again"); err != nil || res.Output != "again\n" {
		t.Errorf("output of the next command %q, error %v", res.Output, err)
	}
}

func TestRunCountsWhatChildrenUse(t *testing.T) {
	s := start(t, Options{})
	const busy = `i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done`
	alone, err := s.Run(t.Context(), "/bin/sh", "-c", ":")
	if err != nil {
		t.Fatal(err)
	}
	child, err := s.Run(t.Context(), "/bin/sh", "-c", "/bin/sh -c '"+busy+"'; :")
	if err != nil {
		t.Fatal(err)
	}
	if child.User <= alone.User {
		t.Errorf("user time with a busy child %v, without %v", child.User, alone.User)
	}
}

func TestRunFails(t *testing.T) {
	s := start(t, Options{})
	for command, want := range map[string]string{
		"echo no such ship; exit 3": "exit status 3: no such ship",
		"kill -KILL $$":             "exit status 137",
	} {
		if _, err := s.Run(t.Context(), "/bin/sh", "-c", command); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", command, err, want)
		}
	}
	if _, err := s.Run(t.Context(), "/nonexistent"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a program that is not there: error %v", err)
	}
}

func TestRunOverlaps(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	s := start(t, Options{})
	if _, err := s.Run(t.Context(), "/usr/bin/mkfifo", fifo); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	read := make(chan error, 1)
	go func() {
		_, err := s.Run(ctx, "/bin/sh", "-c", "read line <"+fifo)
		read <- err
	}()
	if _, err := s.Run(ctx, "/bin/sh", "-c", "echo line >"+fifo); err != nil {
		t.Error(err)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
}

func TestRunGivesUp(t *testing.T) {
	s := start(t, Options{})
	fifo := filepath.Join(t.TempDir(), "fifo")
	if _, err := s.Run(t.Context(), "/usr/bin/mkfifo", fifo); err != nil {
		t.Fatal(err)
	}
	late := errors.New("late")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(late)
	if _, err := s.Run(ctx, "/bin/sh", "-c", "read line <"+fifo); !errors.Is(err, late) {
		t.Errorf("error %v, want %v", err, late)
	}
	if _, err := s.Run(t.Context(), "/bin/sh", "-c", "echo line >"+fifo); err != nil {
		t.Error(err)
	}
}
