package keeper

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

func TestStartLogExitForget(t *testing.T) {
	h := newHarness(t)
	started := h.start(h.sh("a", "echo out; echo err >&2; exit 3"))
	if started.Pid == 0 || started.StartedAt.IsZero() || started.Exited {
		t.Errorf("status after start: %+v", started)
	}
	s := h.wait("a", "")
	if !s.Exited || s.ExitCode != 3 || s.ExitedAt.Before(s.StartedAt) || s.OOMKilled || s.Error != "" {
		t.Errorf("status after exit: %+v", s)
	}
	byStream := map[string]string{}
	for _, e := range readLog(t, h.logPath("a")) {
		byStream[e.Stream] += e.Log
	}
	if byStream["stdout"] != "out\n" || byStream["stderr"] != "err\n" {
		t.Errorf("log %q", byStream)
	}
	must(t, h.Forget(t.Context(), "a", ""))
	if _, err := h.Status(t.Context(), "a", ""); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("status after forget: %v", err)
	}
	h.start(h.sh("a", "exit 0"))
	if s := h.wait("a", ""); s.ExitCode != 0 {
		t.Errorf("second run: %+v", s)
	}
}

func TestExitCodes(t *testing.T) {
	h := newHarness(t)
	for script, want := range map[string]int{
		"exit 0": 0, "exit 1": 1, "exit 255": 255, "exit 126": 126,
		"kill -KILL $$": 137, "kill -TERM $$": 143, "kill -SEGV $$": 139,
	} {
		id := strings.NewReplacer(" ", "_", "$", "").Replace(script)
		h.start(h.sh(id, script))
		if s := h.wait(id, ""); s.ExitCode != want {
			t.Errorf("%q exits with %d, want %d", script, s.ExitCode, want)
		}
	}
}

func TestSignal(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "exec sleep 1000"))
	if err := h.Signal(t.Context(), "a", "", 99); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("signal 99: %v", err)
	}
	must(t, h.Signal(t.Context(), "a", "", syscall.SIGTERM))
	if s := h.wait("a", ""); s.ExitCode != 143 {
		t.Errorf("exit code %d", s.ExitCode)
	}
	if err := h.Signal(t.Context(), "a", "", syscall.SIGTERM); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("signal after exit: %v", err)
	}
	if err := h.Signal(t.Context(), "b", "", syscall.SIGTERM); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("signal to nobody: %v", err)
	}
}

func TestStartErrors(t *testing.T) {
	h := newHarness(t)
	missing := h.sh("a", "")
	missing.Spec.Process.Args = []string{"/no/such/program"}
	_, err := h.Start(t.Context(), missing)
	if !errors.Is(err, oci.ErrCommandNotFound) || !errors.Is(err, errdefs.ErrInvalid) || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("missing command: %v", err)
	}
	if want := "exec /no/such/program: command not found: no such file or directory"; err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
	notExecutable := h.sh("a", "")
	notExecutable.Spec.Process.Args = []string{"/etc/passwd"}
	if _, err = h.Start(t.Context(), notExecutable); !errors.Is(err, oci.ErrCommandNotExecutable) {
		t.Errorf("not executable: %v", err)
	}
	h.start(h.sh("a", "exec sleep 1000")) // the failures have left nothing
	if _, err = h.Start(t.Context(), h.sh("a", "")); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("second start: %v", err)
	}
	if err = h.Forget(t.Context(), "a", ""); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("forget of a running one: %v", err)
	}
	if err = h.Forget(t.Context(), "b", ""); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("forget of nobody: %v", err)
	}
	for _, bad := range []*StartRequest{
		h.sh("../a", ""), h.sh("", ""), {ID: "c"}, {ID: "c", Spec: &specs.Spec{}},
		{ID: "c", Spec: h.sh("", "").Spec, Log: LogConfig{Driver: "json-file", Path: "relative"}},
		{ID: "c", Spec: &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{CgroupsPath: "relative"}}},
	} {
		if _, err = h.Start(t.Context(), bad); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("start of %+v: %v", bad, err)
		}
	}
	if list, err := h.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("list: %+v, %v", list, err)
	}
}

func TestExec(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "exec sleep 1000"))
	exec := func(id, script string) error {
		_, err := h.Exec(t.Context(), &ExecRequest{
			ContainerID: "a", ExecID: id,
			Process: &specs.Process{Args: []string{"/bin/sh", "-c", script}},
		})
		return err
	}
	stream := h.attach("a", "x", AttachOptions{Stdout: true, Stderr: true, BeforeStart: true})
	must(t, exec("x", "echo hello; echo sorry >&2; exit 7"))
	if out, err := split(t, stream); out != "hello\n" || err != "sorry\n" {
		t.Errorf("output %q, %q", out, err)
	}
	if s := h.wait("a", "x"); s.ExitCode != 7 || s.ContainerID != "a" || s.ExecID != "x" {
		t.Errorf("status %+v", s)
	}
	if err := exec("x", ""); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("second exec: %v", err)
	}
	must(t, h.Forget(t.Context(), "a", "x"))
	must(t, exec("x", "exec sleep 1000"))
	must(t, h.Signal(t.Context(), "a", "", syscall.SIGKILL))
	h.wait("a", "")
	if s := h.wait("a", "x"); s.ExitCode != 137 {
		t.Errorf("exec outlived its container: %+v", s)
	}
	if err := exec("y", ""); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("exec in an exited container: %v", err)
	}
}
