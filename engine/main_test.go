package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-containers/berth/keeper"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/network"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideVar marks the process that has network and mounts of its own. Its
// value is the directory for the tests' engines.
const insideVar = "BERTH_ENGINE_TEST_INSIDE"

// childVar makes the test binary a process that embeds an engine, to be
// killed: its value is the name of what it does, see crash_test.go.
const childVar = "BERTH_ENGINE_TEST_CHILD"

// TestMain lets the test binary play three parts: the keeper (called as
// berth-oci would be), an engine to be killed, and the tests. The tests run in
// a network and mount namespace of their own, so that the host's links, tables
// and mounts are neither used nor touched.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "keep":
		os.Exit(beKeeper(os.Args[2:]))
	case os.Getenv(childVar) != "":
		os.Exit(beChild(os.Getenv(childVar)))
	case os.Getuid() != 0:
		os.Exit(m.Run())
	case os.Getenv(insideVar) != "":
		if err := prepareInside(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare test namespace:", err)
			os.Exit(2)
		}
		os.Exit(m.Run())
	}
	code, err := runInside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "run tests in a namespace:", err)
		code = 2
	}
	os.Exit(code)
}

// runInside runs this program again in namespaces of its own.
func runInside() (code int, err error) {
	root, err := os.MkdirTemp("", ".berth-engine-test-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(root)) }()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVar+"="+root)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func beKeeper(args []string) int {
	options, err := keeper.ParseArgs(args)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		err = keeper.Serve(ctx, options)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// testRoot is where the tests' engines live: a tmpfs of this process's own
// mount namespace, gone with it.
func testRoot() string { return os.Getenv(insideVar) }

func prepareInside() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("berth-test", testRoot(), "tmpfs", 0, "mode=700"); err != nil {
		return err
	}
	return exec.Command("ip", "link", "set", "lo", "up").Run()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes containers")
	}
}

// testConfig is an engine of its own below dir.
func testConfig(dir string) Config {
	name := filepath.Base(dir)
	cfg := Config{
		StateRoot: filepath.Join(dir, "state"), RunRoot: filepath.Join(dir, "run"), BerthOCI: "/proc/self/exe",
		BridgeName: "bt" + name, BridgeSubnet: "10.77.0.0/16", CgroupParent: "/berth-test-" + name, StopTimeout: 10,
		Version: "test",
	}
	if os.Getenv("BERTH_TEST_QUIET") != "" {
		return cfg
	}
	if os.Getenv("BERTH_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	} else {
		cfg.Logger = slog.New(slog.NewTextHandler(&failingLog{}, &slog.HandlerOptions{Level: slog.LevelError}))
	}
	return cfg
}

// failingLog makes errors nobody returns visible in the test's output.
type failingLog struct{}

func (*failingLog) Write(p []byte) (int, error) {
	return os.Stderr.Write(append([]byte("engine log: "), p...))
}

// testEngine is an open engine with the image busybox, whose end checks that
// nothing is left.
type testEngine struct {
	*Engine
	t   testing.TB
	dir string
}

func newTestEngine(t testing.TB) *testEngine {
	t.Helper()
	needRoot(t)
	dir, err := os.MkdirTemp(testRoot(), "")
	if err != nil {
		t.Fatal(err)
	}
	te := &testEngine{t: t, dir: dir}
	t.Cleanup(te.end)
	te.open()
	if _, err := te.ImageImport(t.Context(), busyboxTar(t), ImageImportOptions{Ref: "busybox", Changes: []string{"CMD sh"}}); err != nil {
		t.Fatal(err)
	}
	return te
}

func (te *testEngine) open() {
	te.t.Helper()
	te.openSoon()
	te.beside.Wait()
}

// openSoon does not wait for what the engine does beside its work when it begins.
func (te *testEngine) openSoon() {
	te.t.Helper()
	e, err := Open(context.Background(), testConfig(te.dir))
	if err != nil {
		te.t.Fatalf("open engine: %v", err)
	}
	te.Engine = e
}

// end removes everything through the engine and then looks for leftovers.
func (te *testEngine) end() {
	t := te.t
	if te.Engine == nil {
		return
	}
	ctx := context.Background()
	if _, err := te.keeper.connected(); err != nil {
		te.openSoon() // the test failed between two engines
	}
	for _, c := range te.containers.all() {
		if err := te.ContainerRemove(ctx, c.id, RemoveOptions{Force: true, Volumes: true}); err != nil && !strings.Contains(err.Error(), "no such container") {
			t.Errorf("remove at the end: %v", err)
		}
	}
	client, err := te.keeper.connect(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	if left, err := client.List(ctx); err != nil || len(left) > 0 {
		t.Errorf("keeper still knows %v, %v", left, err)
	}
	pid := client.Info().Pid
	if err := te.Close(); err != nil {
		t.Errorf("close engine: %v", err)
	}
	terminateKeeper(t, pid)
	te.checkNothingLeft()
	if err := os.RemoveAll(te.dir); err != nil {
		t.Errorf("remove test directory: %v", err)
	}
}

// terminateKeeper ends a keeper and waits for it by pidfd.
func terminateKeeper(t testing.TB, pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Errorf("open keeper: %v", err)
		return
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		t.Errorf("end keeper: %v", err)
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, 20000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 {
			t.Errorf("keeper has not ended: %v", err)
		}
		return
	}
}

func (te *testEngine) checkNothingLeft() {
	t, cfg := te.t, testConfig(te.dir)
	for _, dir := range []string{"containers", "image/containers"} {
		if left, _ := os.ReadDir(filepath.Join(cfg.StateRoot, dir)); len(left) > 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
	for _, dir := range []string{"netns", "shm"} {
		if left, _ := os.ReadDir(filepath.Join(cfg.RunRoot, dir)); len(left) > 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
	te.awaitNoLinks()
	err := network.Purge(context.Background(), network.Options{
		StateDir: filepath.Join(cfg.StateRoot, "network"), RunDir: filepath.Join(cfg.RunRoot, "network"),
		NetnsDir: filepath.Join(cfg.RunRoot, "netns"), BridgeLink: cfg.BridgeName,
	})
	if err != nil {
		t.Errorf("purge network: %v", err)
	}
	if err := cgroup.RemoveEmpty(cfg.CgroupParent); err != nil {
		t.Errorf("cgroups left: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(te.dir)) {
		t.Errorf("mounts left:\n%s", mounts)
	}
}

// awaitNoLinks waits until the kernel has destroyed the namespaces of ended
// containers, and their links with them.
func (te *testEngine) awaitNoLinks() {
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		te.t.Error(err)
		return
	}
	patience := time.After(20 * time.Second)
	for {
		links, err := netlink.LinkList()
		if errors.Is(err, netlink.ErrDumpInterrupted) { // they are just being removed
			continue
		}
		if err != nil {
			te.t.Error(err)
			return
		}
		if !slices.ContainsFunc(links, func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Name, "veth") }) {
			return
		}
		select {
		case <-updates:
		case <-patience:
			te.t.Errorf("links left: %v", links)
			return
		}
	}
}

// busyboxTar is a root file system of the host's static busybox.
func busyboxTar(t testing.TB) io.Reader {
	t.Helper()
	binary, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs the package busybox-static")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h *tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin/", "etc/", "dev/", "proc/", "sys/", "root/", "home/", "var/"} {
		add(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	add(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	add(&tar.Header{Typeflag: tar.TypeDir, Name: "home/sailor/", Mode: 0o750, Uid: 1000, Gid: 1000}, nil)
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "home/sailor/chart", Mode: 0o640, Uid: 1000, Gid: 1000}, []byte("here be dragons\n"))
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, binary)
	for _, applet := range []string{"sh", "true", "false", "cat", "echo", "sleep", "id", "env", "pwd", "ls", "mkdir", "touch",
		"kill", "seq", "stat", "hostname", "ip", "wget", "nc", "ps", "head", "dd", "mount", "date", "test", "grep", "tail", "stty", "readlink", "usleep"} {
		add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}, nil)
	}
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644},
		[]byte("root:x:0:0:root:/root:/bin/sh\nsailor:x:1000:1000::/home/sailor:/bin/sh\n"))
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644},
		[]byte("root:x:0:\nsailor:x:1000:\ncrew:x:2000:sailor\n"))
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/notexec", Mode: 0o644}, []byte("no program\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// request is a create request for busybox without a network, which most tests
// do not need.
func request(cmd ...string) *container.CreateRequest {
	return &container.CreateRequest{
		Config:     &container.Config{Image: "busybox", Cmd: cmd},
		HostConfig: &container.HostConfig{NetworkMode: "none"},
	}
}

func (te *testEngine) create(name string, req *container.CreateRequest) string {
	te.t.Helper()
	resp, err := te.ContainerCreate(te.t.Context(), name, req, nil)
	if err != nil {
		te.t.Fatalf("create: %v", err)
	}
	return resp.ID
}

func (te *testEngine) run(name string, req *container.CreateRequest) string {
	te.t.Helper()
	id := te.create(name, req)
	if err := te.ContainerStart(te.t.Context(), id); err != nil {
		te.t.Fatalf("start: %v", err)
	}
	return id
}

// wait waits for the condition, a minute at most.
func (te *testEngine) wait(id string, cond container.WaitCondition) int {
	te.t.Helper()
	ctx, cancel := context.WithTimeout(te.t.Context(), time.Minute)
	defer cancel()
	ch, err := te.ContainerWait(ctx, id, cond)
	if err != nil {
		te.t.Fatalf("wait: %v", err)
	}
	resp, ok := <-ch
	if !ok {
		te.t.Fatalf("wait for %s of %s: no end within a minute", cond, short(id))
	}
	return int(resp.StatusCode)
}

// logLines collects what ContainerLogs writes.
type logLines struct {
	bytes.Buffer
	stderr bytes.Buffer
	tty    bool
	begun  int
}

func (l *logLines) Begin(tty bool) error { l.tty = tty; l.begun++; return nil }
func (l *logLines) Flush() error         { return nil }
func (l *logLines) WriteLog(s LogStream, p []byte) error {
	if s == Stderr {
		l.stderr.Write(p)
		return nil
	}
	l.Write(p)
	return nil
}

// logs is a container's stdout and stderr.
func (te *testEngine) logs(id string) (stdout, stderr string) {
	te.t.Helper()
	var l logLines
	if err := te.ContainerLogs(te.t.Context(), id, LogsOptions{Stdout: true, Stderr: true, Tail: -1}, &l); err != nil {
		te.t.Fatalf("logs: %v", err)
	}
	return l.String(), l.stderr.String()
}

// output runs a command to its end and returns what it printed and its code.
func (te *testEngine) output(req *container.CreateRequest) (stdout string, code int) {
	te.t.Helper()
	id := te.run("", req)
	code = te.wait(id, container.WaitConditionNotRunning)
	out, stderr := te.logs(id)
	if stderr != "" {
		te.t.Logf("stderr: %s", stderr)
	}
	if err := te.ContainerRemove(te.t.Context(), id, RemoveOptions{Volumes: true}); err != nil {
		te.t.Fatalf("remove: %v", err)
	}
	return out, code
}

// exec runs a command in a container and returns its output and exit code.
func (te *testEngine) exec(id string, cmd ...string) (stdout string, code int) {
	te.t.Helper()
	return te.execRequest(id, &container.ExecCreateRequest{Cmd: cmd, AttachStdout: true, AttachStderr: true})
}

func (te *testEngine) execRequest(id string, req *container.ExecCreateRequest) (output string, code int) {
	te.t.Helper()
	ctx := te.t.Context()
	x, err := te.ExecCreate(ctx, id, req)
	if err != nil {
		te.t.Fatalf("exec create: %v", err)
	}
	s, err := te.ExecStart(ctx, x, ExecStartOptions{})
	if err != nil {
		te.t.Fatalf("exec start: %v", err)
	}
	defer s.Close()
	var out bytes.Buffer
	if s.TTY() {
		_, err = io.Copy(&out, s)
	} else {
		_, err = stdcopy.StdCopy(&out, &out, s)
	}
	if err != nil {
		te.t.Fatalf("read exec: %v", err)
	}
	resp, err := te.ExecInspect(ctx, x)
	if err != nil || resp.ExitCode == nil {
		te.t.Fatalf("exec inspect: %+v, %v", resp, err)
	}
	return out.String(), *resp.ExitCode
}

// demux reads an attached stream without a terminal to its end.
func demux(t testing.TB, s io.Reader) string {
	t.Helper()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &out, s); err != nil {
		t.Fatalf("read stream: %v", err)
	}
	return out.String()
}

// foreign is a platform this machine is not.
func foreign() *ocispec.Platform { return &ocispec.Platform{OS: "linux", Architecture: "s390x"} }

// quietLog is for tests that provoke errors nobody returns.
func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }
