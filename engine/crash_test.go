package engine

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

func unixMkfifo(path string) error { return unix.Mkfifo(path, 0o600) }

func killProcess(t testing.TB, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// dirVar is the directory of the engine a child embeds.
const dirVar = "BERTH_ENGINE_TEST_DIR"

// beChild is a process that embeds an engine, to be killed by a test. It says
// "at work" when the test may begin to think of killing it, and goes on for
// as long as it lives.
func beChild(what string) int {
	if what == "attributes" {
		return changeAttributes()
	}
	e, err := Open(context.Background(), testConfig(os.Getenv(dirVar)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	ctx := context.Background()
	fmt.Println("at work")
	for i := 0; ; i++ {
		switch what {
		case "starts":
			err = childStarts(ctx, e, i)
		case "execs":
			err = childExecs(ctx, e)
		default:
			err = fmt.Errorf("unknown part %q", what)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			return 1
		}
	}
}

// childStarts starts 20 containers at once and lets them run.
func childStarts(ctx context.Context, e *Engine, round int) error {
	errs := make(chan error, 20)
	for i := range 20 {
		go func() {
			req := request("sh", "-c", fmt.Sprintf("echo %d; exec sleep 1000", i))
			if i%2 == 0 {
				req = request("sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
			}
			req.HostConfig.NetworkMode = "bridge"
			req.HostConfig.AutoRemove = i%5 == 4
			resp, err := e.ContainerCreate(ctx, fmt.Sprintf("c%d-%d", round, i), req, nil)
			if err == nil {
				err = e.ContainerStart(ctx, resp.ID)
			}
			errs <- err
		}()
	}
	for range 20 {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// childExecs executes in the container "ship" without end.
func childExecs(ctx context.Context, e *Engine) error {
	x, err := e.ExecCreate(ctx, "ship", &container.ExecCreateRequest{Cmd: []string{"sh", "-c", "exit 9"}, AttachStdout: true})
	if err != nil {
		return err
	}
	s, err := e.ExecStart(ctx, x, ExecStartOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = io.Copy(io.Discard, s)
	return err
}

// killChildAfter closes the test's engine, runs a child in its place until it
// has written after lines of n, kills it, and opens an engine again.
func (te *testEngine) killChildAfter(what string, delay int) {
	te.t.Helper()
	if err := te.Close(); err != nil {
		te.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+what, dirVar+"="+te.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		te.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		te.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "at work\n" {
		te.t.Errorf("child said %q: %v\n%s", line, err, stderr.String())
	}
	burn(delay)
	if err := cmd.Process.Kill(); err != nil {
		te.t.Fatal(err)
	}
	cmd.Wait() // it was killed
	if stderr.Len() > 0 {
		te.t.Errorf("child: %s", stderr.String())
	}
	te.open()
}

// burn lets some time pass, in units of starting a process: the children are
// to be killed at different moments, none of which matters by itself.
func burn(units int) {
	for range units {
		exec.Command("/bin/true").Run()
	}
}

// checkWhole looks whether every container is in a state an engine can go on
// with and agrees with the keeper.
func (te *testEngine) checkWhole() {
	t := te.t
	t.Helper()
	known, err := te.keeper.list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	running := map[string]int{}
	for _, st := range known {
		if !st.Exited && st.ExecID == "" {
			running[st.ContainerID] = st.Pid
		}
	}
	for _, c := range te.containers.all() {
		rec := c.snapshot()
		if pid := running[c.id]; rec.State.active() != (pid != 0) && rec.State.Status == stateRunning || rec.State.Pid != pid && pid != 0 {
			t.Errorf("container %s: record says %+v, keeper pid %d", rec.Name, rec.State, pid)
		}
		delete(running, c.id)
		if rec.State.Status == stateStarting || rec.State.Status == stateCreating || rec.State.Status == stateRemoving {
			t.Errorf("container %s is still %s", rec.Name, rec.State.Status)
		}
	}
	if len(running) > 0 {
		t.Errorf("processes of no container: %v", running)
	}
}

func TestKilledWhileStarting(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds: kills an engine again and again")
	}
	te := newTestEngine(t)
	for _, delay := range []int{0, 2, 5, 10, 20, 40} {
		te.killChildAfter("starts", delay)
		te.settleAll()
		te.checkWhole()
		for _, c := range te.containers.all() {
			rec := c.snapshot()
			if i := nameIndex(rec.Name); rec.State.Status == stateExited && i%2 == 0 && rec.State.ExitCode != i {
				t.Errorf("container %s exited %d", rec.Name, rec.State.ExitCode)
			}
			if err := te.ContainerRemove(t.Context(), c.id, RemoveOptions{Force: true}); err != nil && !strings.Contains(err.Error(), "no such container") {
				t.Errorf("remove %s: %v", rec.Name, err)
			}
		}
	}
}

func nameIndex(name string) int {
	var round, i int
	fmt.Sscanf(name, "c%d-%d", &round, &i)
	return i
}

// settleAll waits until all exits have been taken note of: of those that end by
// themselves, and the removal of those with --rm.
func (te *testEngine) settleAll() {
	te.t.Helper()
	for _, c := range te.containers.all() {
		rec := c.snapshot()
		if rec.State.Status == stateCreated || nameIndex(rec.Name)%2 != 0 {
			continue
		}
		cond := container.WaitConditionNotRunning
		if rec.HostConfig.AutoRemove {
			cond = container.WaitConditionRemoved
		}
		if _, err := c.wait(te.t.Context(), cond, c.exitCount()); err != nil {
			te.t.Fatal(err)
		}
		if err := c.lock(te.t.Context()); err == nil {
			c.unlock()
		}
	}
}

func TestKilledWhileExecuting(t *testing.T) {
	te := newTestEngine(t)
	id := te.run("ship", request("sleep", "1000"))
	for _, delay := range []int{0, 3, 10} {
		te.killChildAfter("execs", delay)
		c, err := te.containers.get(id)
		if err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		var list []*execution
		for _, x := range c.execs {
			list = append(list, x)
		}
		c.mu.Unlock()
		if len(list) == 0 && delay > 5 {
			t.Error("no exec is on record")
		}
		for _, x := range list {
			if c.snapshotExec(x).Status == execCreated {
				continue
			}
			<-x.done
			// 126 is one that was never started: the engine died before it asked.
			if code := *c.snapshotExec(x).ExitCode; code != 9 && code != exitNotExecutable {
				t.Errorf("exec %s exited %d", short(x.ID), code)
			}
		}
		if !te.inspect("ship").State.Running {
			t.Fatal("the container ended with the engine")
		}
	}
}

// TestKilledWhileLogging: a container writes numbered lines while engine after
// engine is killed; every number is in the log once and in order.
func TestKilledWhileLogging(t *testing.T) {
	te := newTestEngine(t)
	req := request("sh", "-c", "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i; done")
	req.HostConfig.LogConfig = container.LogConfig{Type: logJSONFile, Config: map[string]string{"max-size": "1m", "max-file": "1000"}}
	id := te.run("ship", req)
	for _, delay := range []int{0, 5} {
		te.killChildAfter("execs", delay)
	}
	if err := te.stopIn(id, 20); err != nil {
		t.Fatal(err)
	}
	out, _ := te.logs(id)
	n := 0
	for line := range strings.Lines(out) {
		if n++; line != fmt.Sprintln(n) {
			t.Fatalf("line %d is %q", n, line)
		}
	}
	if n < 100 {
		t.Errorf("only %d lines", n)
	}
}
