package keeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
)

// clientMains are the programs by which tests play an engine that is killed.
// They are called with the keeper's root and report each thing done on a line
// of stdout.
func clientMains() map[string]func(args []string) int {
	return map[string]func([]string) int{
		"connect": clientConnect,
		"storm":   clientStorm,
		"attach":  clientAttach,
	}
}

// startClient runs one of clientMains. The caller kills or waits for it.
func (h *harness) startClient(name string, args ...string) (*exec.Cmd, *bufio.Scanner) {
	h.t.Helper()
	cmd := exec.Command(h.options.Binary, append([]string{h.root}, args...)...)
	cmd.Env = append(h.options.Env, "KEEPER_TEST_CLIENT="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(h.t, err)
	must(h.t, cmd.Start())
	h.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

func clientFor(root string) (*Client, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return Connect(context.Background(), ConnectOptions{
		Root: root, Binary: self, Idle: 50 * time.Millisecond, Env: []string{"KEEPER_TEST_RUNTIME=plain"},
	})
}

// clientConnect prints the pid of the keeper and waits to be killed.
func clientConnect(args []string) int {
	c, err := clientFor(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "connect:", err)
		return 1
	}
	fmt.Println(c.Info().Pid)
	<-c.Done()
	return 0
}

// clientStorm starts containers and executes in them without end.
func clientStorm(args []string) int {
	c, err := clientFor(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "connect:", err)
		return 1
	}
	for i := 0; ; i++ {
		id := args[1] + strconv.Itoa(i)
		_, err := c.Start(context.Background(), stormContainer(args[0], id))
		if err == nil {
			_, err = c.Exec(context.Background(), &ExecRequest{
				ContainerID: id, ExecID: "x",
				Process: &specs.Process{Args: []string{"/bin/sh", "-c", "exit 9"}},
			})
		}
		if err != nil && !errors.Is(err, errdefs.ErrConflict) { // it may have ended before the exec
			fmt.Fprintln(os.Stderr, "storm:", err)
			return 1
		}
		fmt.Println(id)
	}
}

// settle waits until the keeper has carried out the requests of dead clients.
// Connections are accepted in order: when one of ours has been answered, earlier
// ones are among the keeper's sockets until they have been dealt with.
func (h *harness) settle() {
	h.t.Helper()
	_, err := h.List(h.t.Context())
	must(h.t, err)
	h.until("requests are carried out", func() bool {
		sockets := 0
		dir := fmt.Sprintf("/proc/%d/fd/", h.Info().Pid)
		names, err := os.ReadDir(dir)
		must(h.t, err)
		for _, name := range names {
			if target, err := os.Readlink(dir + name.Name()); err == nil && strings.HasPrefix(target, "socket:") {
				sockets++
			}
		}
		return sockets <= 2 // the listener and our session
	})
}

const stormLines = 400

func stormContainer(root, id string) *StartRequest {
	return &StartRequest{
		ID:  id,
		Log: LogConfig{Driver: "json-file", Path: root + "/" + id + ".log"},
		Spec: &specs.Spec{
			Process: &specs.Process{Args: []string{"/bin/sh", "-c", fmt.Sprintf("seq %d; exit 5", stormLines)}},
			Linux:   &specs.Linux{},
		},
	}
}

// clientAttach attaches to a container and prints how much it has read.
func clientAttach(args []string) int {
	c, err := clientFor(args[0])
	if err != nil {
		return 1
	}
	stream, err := c.Attach(context.Background(), args[1], "", AttachOptions{Stdout: true})
	if err != nil {
		return 1
	}
	b := make([]byte, 4096)
	for {
		n, err := stream.Read(b)
		if err != nil {
			return 0
		}
		fmt.Println(n)
	}
}

// Engines that are killed in the middle of a start or an exec leave containers
// that ran to their end, with their whole output and exit code.
func TestClientsKilledInTheMiddle(t *testing.T) {
	h := newHarness(t)
	for round := range 12 {
		cmd, lines := h.startClient("storm", fmt.Sprintf("r%d-", round))
		for range round % 4 { // at another point each time
			lines.Scan()
		}
		must(t, cmd.Process.Kill())
		cmd.Wait()
	}
	h.settle()
	list, err := h.List(t.Context())
	must(t, err)
	inits := 0
	for _, s := range list {
		final := h.wait(s.ContainerID, s.ExecID)
		want := 5
		if s.ExecID != "" {
			want = 9
		}
		// The exec may be killed by the end of its container, here by the
		// keeper as there is no pid namespace.
		if final.ExitCode != want && (s.ExecID == "" || final.ExitCode != 137) {
			t.Errorf("status %+v", final)
		}
		if s.ExecID == "" {
			inits++
			checkNumbers(t, readLog(t, h.logPath(s.ContainerID)), stormLines)
		}
	}
	if inits == 0 {
		t.Error("no container was started")
	}
}

// An engine that is attached and killed while a container logs heavily, and its
// successors, cost no line.
func TestClientsKilledWhileLogging(t *testing.T) {
	h := newHarness(t)
	const lines = 200_000
	h.start(h.sh("a", fmt.Sprintf("seq %d", lines)))
	for range 5 {
		cmd, output := h.startClient("attach", "a")
		output.Scan()
		must(t, cmd.Process.Kill())
		cmd.Wait()
	}
	h.wait("a", "")
	checkNumbers(t, readLog(t, h.logPath("a")), lines)
}

// Many engines that look for a keeper at the same time start exactly one.
func TestOneKeeperForAll(t *testing.T) {
	h := newHarness(t)
	h.expectKeeperEnds()
	const engines = 10
	type running struct {
		cmd *exec.Cmd
		out *bufio.Scanner
	}
	var all []running
	for range engines {
		cmd, out := h.startClient("connect")
		all = append(all, running{cmd, out})
	}
	pids := map[string]bool{}
	for _, r := range all {
		if !r.out.Scan() {
			t.Fatal("an engine did not connect")
		}
		pids[r.out.Text()] = true
	}
	if len(pids) != 1 {
		t.Errorf("keepers %v", pids)
	}
	h.connect()
	if pid := strconv.Itoa(h.Info().Pid); !pids[pid] {
		t.Errorf("connected to keeper %s, not one of %v", pid, pids)
	}
	// They all die at once; the keeper stays for the one that is left.
	for _, r := range all {
		must(t, r.cmd.Process.Kill())
		r.cmd.Wait()
	}
	if _, err := h.List(t.Context()); err != nil {
		t.Errorf("list: %v", err)
	}
}

// Connecting again and again around the moment at which a keeper ends itself
// always finds a keeper.
func TestConnectWhileTheKeeperEnds(t *testing.T) {
	h := newHarness(t)
	h.expectKeeperEnds()
	h.options.Idle = time.Millisecond
	for i := range 60 {
		h.connect()
		h.start(h.sh("a", "exit 0"))
		h.wait("a", "")
		must(t, h.Forget(t.Context(), "a", ""))
		must(t, h.Close())
		// Somewhere in the millisecond after which the keeper goes.
		for range i * 400 {
			syscall.Getppid()
		}
	}
	h.connect()
}

// The keeper is in nobody's process group or session, and signals to its
// starter's group do not reach it.
func TestKeeperIsDetached(t *testing.T) {
	h := newHarness(t)
	h.expectKeeperEnds()
	cmd := exec.Command(h.options.Binary, h.root)
	cmd.Env = append(h.options.Env, "KEEPER_TEST_CLIENT=connect")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line := bufio.NewScanner(out)
	if !line.Scan() {
		t.Fatal("the engine did not connect")
	}
	h.connect()
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGKILL} {
		syscall.Kill(-cmd.Process.Pid, sig)
	}
	cmd.Wait()
	must(t, syscall.Kill(h.Info().Pid, syscall.SIGHUP)) // not even to itself
	h.start(h.sh("a", "exit 0"))
	h.wait("a", "")
	pid, err := strconv.Atoi(line.Text())
	must(t, err)
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	must(t, err)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if session := fields[3]; session != line.Text() || cwd != "/" {
		t.Errorf("keeper %d is in session %s and directory %s", pid, session, cwd)
	}
}
