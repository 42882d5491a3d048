package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

func TestMemoryLimitKills(t *testing.T) {
	te := newTestEngine(t)
	ch, err := te.Subscribe(t.Context(), filter("event", "oom", "event", "die"), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	req := request("sh", "-c", "a=x; while :; do a=$a$a; done")
	req.HostConfig.Memory, req.HostConfig.MemorySwap = 16<<20, 16<<20
	id := te.run("", req)
	if code := te.wait(id, container.WaitConditionNotRunning); code != 137 {
		t.Errorf("exit code %d", code)
	}
	if st := te.inspect(id).State; !st.OOMKilled {
		t.Errorf("state %+v", st)
	}
	if a, b := <-ch, <-ch; a.Action != events.ActionOOM || b.Action != events.ActionDie || b.Actor.Attributes["exitCode"] != "137" {
		t.Errorf("events %v, %v", a, b)
	}
}

func TestPidsLimitHoldsForkBomb(t *testing.T) {
	te := newTestEngine(t)
	limit := int64(20)
	req := request("sh", "-c", "bomb() { bomb | bomb & }; bomb; echo planted; sleep 1000")
	req.HostConfig.PidsLimit = &limit
	id := te.run("", req)
	te.awaitLog(id, "planted")
	s, err := te.ContainerStats(t.Context(), id)
	if err != nil || s.PidsStats.Limit != 20 || s.PidsStats.Current > 20 {
		t.Errorf("pids %+v, %v", s.PidsStats, err)
	}
	if err := te.ContainerRemove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
}

func TestUpdateStatsTop(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	req := request("sleep", "1000")
	req.HostConfig.Memory = 64 << 20
	id := te.run("", req)
	upd := &container.UpdateConfig{Resources: container.Resources{Memory: 32 << 20, MemorySwap: 64 << 20, NanoCPUs: 5e8},
		RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}}
	if _, err := te.ContainerUpdate(ctx, id, upd); err != nil {
		t.Fatal(err)
	}
	if hc := te.inspect(id).HostConfig; hc.Memory != 32<<20 || hc.NanoCPUs != 5e8 || hc.RestartPolicy.MaximumRetryCount != 3 {
		t.Errorf("host config %+v", hc.Resources)
	}
	bad := &container.UpdateConfig{Resources: container.Resources{Memory: 1 << 20}}
	if _, err := te.ContainerUpdate(ctx, id, bad); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("update below the minimum: %v", err)
	}
	n := 0
	err := te.ContainerStatsFollow(ctx, id, func(s *container.StatsResponse) error {
		if s.MemoryStats.Limit != 32<<20 || s.MemoryStats.Usage == 0 || s.CPUStats.CPUUsage.TotalUsage == 0 || s.CPUStats.SystemUsage == 0 {
			t.Errorf("sample %+v", s)
		}
		if n++; n == 2 {
			if s.PreRead.IsZero() || s.PreCPUStats.SystemUsage == 0 || !s.PreRead.Before(s.Read) {
				t.Errorf("second sample has no first: %+v", s)
			}
			return io.EOF
		}
		return nil
	})
	if !errors.Is(err, io.EOF) {
		t.Errorf("follow: %v", err)
	}
	top, err := te.ContainerTop(ctx, id, "")
	if err != nil || len(top.Processes) != 1 || top.Titles[7] != "CMD" || top.Processes[0][7] != "sleep 1000" || top.Processes[0][0] != "root" {
		t.Errorf("top %+v, %v", top, err)
	}
	if top, err = te.ContainerTop(ctx, id, "-o pid,comm"); err != nil || !slices.Equal(top.Titles, []string{"PID", "COMMAND"}) || top.Processes[0][1] != "sleep" {
		t.Errorf("top -o %+v, %v", top, err)
	}
	if _, err = te.ContainerTop(ctx, id, "--forest"); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("top --forest: %v", err)
	}
}

func TestBridge(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	req := request("sh", "-c", "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nahoy' | nc -l -p 80; done")
	req.HostConfig.NetworkMode = "bridge"
	req.HostConfig.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostIP: addr("127.0.0.1"), HostPort: ""}}}
	server := te.run("server", req)
	got := te.inspect(server)
	ep := got.NetworkSettings.Networks["bridge"]
	if ep == nil || !ep.IPAddress.IsValid() || ep.Gateway != addr("10.77.0.1") || ep.MacAddress.String() == "" {
		t.Fatalf("endpoint %+v", ep)
	}
	bound := got.NetworkSettings.Ports[network.MustParsePort("80/tcp")]
	if len(bound) != 1 {
		t.Fatalf("ports %+v", got.NetworkSettings.Ports)
	}
	ask := request("sh", "-c", "until wget -q -O - "+ep.IPAddress.String()+"; do sleep 0.1; done; ip -o -4 addr show eth0 | grep -c inet")
	ask.HostConfig.NetworkMode = "bridge"
	if out, _ := te.output(ask); out != "ahoy1\n" {
		t.Errorf("the other container got %q", out)
	}
	if body := get(t, net.JoinHostPort("127.0.0.1", bound[0].HostPort)); body != "ahoy" {
		t.Errorf("the host got %q", body)
	}
	same := request("sh", "-c", "ip -o -4 addr show eth0 | grep -o "+ep.IPAddress.String()+"; hostname")
	same.HostConfig.NetworkMode = "container:server"
	if out, _ := te.output(same); out != ep.IPAddress.String()+"\n"+"server" && !strings.HasPrefix(out, ep.IPAddress.String()+"\n") {
		t.Errorf("in the same network: %q", out)
	}
	taken := request("true")
	taken.HostConfig.NetworkMode = "bridge"
	taken.HostConfig.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostIP: addr("127.0.0.1"), HostPort: bound[0].HostPort}}}
	id := te.create("", taken)
	if err := te.ContainerStart(ctx, id); !errors.Is(err, errdefs.ErrConflict) || strings.Contains(err.Error(), "\n") {
		t.Errorf("taken port: %v", err)
	}
	if st := te.inspect(id).State; st.Status != stateCreated || st.Error == "" {
		t.Errorf("after a taken port: %+v", st)
	}
	n, err := te.NetworkInspect(ctx, "bridge")
	if err != nil || len(n.Containers) != 1 || n.Containers[server].Name != "server" {
		t.Errorf("network %+v, %v", n, err)
	}
	if err := te.stopIn(server, 0); err != nil {
		t.Fatal(err)
	}
	if ep := te.inspect(server).NetworkSettings.Networks["bridge"]; ep.IPAddress.IsValid() {
		t.Errorf("an exited container has the address %s", ep.IPAddress)
	}
	if err := te.ContainerStart(ctx, id); err != nil {
		t.Errorf("start when the port is free again: %v", err)
	}
	te.wait(id, container.WaitConditionNotRunning)
}

// get reads what the server says, asking again between two turns of nc.
func get(t *testing.T, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if ctx.Err() != nil {
			t.Fatalf("dial %s: %v", address, err)
		}
		if err != nil {
			continue
		}
		data, err := io.ReadAll(conn)
		conn.Close()
		if _, body, ok := strings.Cut(string(data), "\r\n\r\n"); ok && err == nil {
			return body
		}
	}
}

func TestHostModes(t *testing.T) {
	te := newTestEngine(t)
	req := request("sh", "-c", "ip -o link show "+testConfig(te.dir).BridgeName+" | grep -c mtu; readlink /proc/self/ns/uts; hostname")
	req.HostConfig.NetworkMode, req.HostConfig.UTSMode, req.HostConfig.PidMode, req.HostConfig.IpcMode = "host", "host", "host", "host"
	out, code := te.output(req)
	if code != 0 || !strings.HasPrefix(out, "1\nuts:[") {
		t.Errorf("printed %q, exited %d", out, code)
	}
}

func TestSharedNamespaces(t *testing.T) {
	te := newTestEngine(t)
	req := request("sh", "-c", "echo cargo > /dev/shm/hold; echo ready; exec sleep 1000")
	req.HostConfig.IpcMode = "shareable"
	first := te.run("first", req)
	te.awaitLog(first, "ready")
	join := request("sh", "-c", "cat /dev/shm/hold; ps | grep -c 'sleep 1000'")
	join.HostConfig.IpcMode, join.HostConfig.PidMode = "container:first", "container:first"
	id := te.run("", join)
	te.wait(id, container.WaitConditionNotRunning)
	if out, _ := te.logs(id); !strings.HasPrefix(out, "cargo\n") || strings.HasSuffix(out, "\n0\n") {
		t.Errorf("printed %q", out)
	}
	private := te.run("private", request("sleep", "1000"))
	join.HostConfig.IpcMode = container.IpcMode("container:" + private)
	if _, err := te.ContainerCreate(t.Context(), "", join, nil); !errors.Is(err, errdefs.ErrInvalid) || errdefs.Hint(err) == "" {
		t.Errorf("join a private IPC namespace: %v", err)
	}
	if err := te.stopIn(first, 0); err != nil {
		t.Fatal(err)
	}
	if err := te.ContainerStart(t.Context(), id); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("join a stopped container: %v", err)
	}
}

func TestExec(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	req := request("sleep", "1000")
	req.Env, req.WorkingDir = []string{"A=container"}, "/tmp"
	id := te.run("", req)
	for _, tc := range []struct {
		name string
		req  container.ExecCreateRequest
		want string
		code int
	}{
		{"plain", container.ExecCreateRequest{Cmd: []string{"sh", "-c", "pwd; echo $A; exit 4"}}, "/tmp\ncontainer\n", 4},
		{"env", container.ExecCreateRequest{Cmd: []string{"sh", "-c", "echo $A"}, Env: []string{"A=exec"}}, "exec\n", 0},
		{"user and directory", container.ExecCreateRequest{Cmd: []string{"sh", "-c", "id -u; pwd; echo $HOME"}, User: "sailor", WorkingDir: "/var"}, "1000\n/var\n/home/sailor\n", 0},
		{"terminal", container.ExecCreateRequest{Cmd: []string{"sh", "-c", "stty size; echo $TERM"}, Tty: true, ConsoleSize: &[2]uint{33, 44}}, "33 44\r\nxterm\r\n", 0},
		{"signal", container.ExecCreateRequest{Cmd: []string{"sh", "-c", "kill -9 $$"}}, "", 137},
		{"capabilities", container.ExecCreateRequest{Cmd: []string{"grep", "CapBnd", "/proc/self/status"}}, "CapBnd:\t00000000a80425fb\n", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.req.AttachStdout, tc.req.AttachStderr = true, true
			if out, code := te.execRequest(id, &tc.req); out != tc.want || code != tc.code {
				t.Errorf("printed %q, exited %d", out, code)
			}
		})
	}
	for cmd, code := range map[string]int{"no-such-command": 127, "/etc/notexec": 126} {
		x, err := te.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{cmd}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := te.ExecStart(ctx, x, ExecStartOptions{}); err == nil || !strings.Contains(err.Error(), cmd) {
			t.Errorf("%s: %v", cmd, err)
		}
		if resp, err := te.ExecInspect(ctx, x); err != nil || resp.ExitCode == nil || *resp.ExitCode != code || resp.Running {
			t.Errorf("%s: %+v, %v", cmd, resp, err)
		}
		if _, err := te.ExecStart(ctx, x, ExecStartOptions{}); !errors.Is(err, errdefs.ErrConflict) {
			t.Errorf("start twice: %v", err)
		}
	}
	if _, err := te.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"true"}, User: "pirate"}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("bad user: %v", err)
	}
	if _, err := te.ExecInspect(ctx, "none"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unknown exec: %v", err)
	}
}

func TestExecStdinAndDetached(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	id := te.run("", request("sleep", "1000"))
	x, err := te.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"cat"}, AttachStdin: true, AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	s, err := te.ExecStart(ctx, x, ExecStartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	big := strings.Repeat("0123456789abcdef", 1<<14)
	go func() {
		io.WriteString(s, big)
		s.CloseWrite()
	}()
	if out := demux(t, s); out != big {
		t.Errorf("cat returned %d bytes of %d", len(out), len(big))
	}
	ch, err := te.Subscribe(ctx, filter("event", "exec_die"), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	x, err = te.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"sh", "-c", "exit 6"}})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := te.ExecStart(ctx, x, ExecStartOptions{Detach: true}); s != nil || err != nil {
		t.Fatalf("detached: %v, %v", s, err)
	}
	for m := range ch {
		if m.Actor.Attributes["execID"] == x {
			break
		}
	}
	if resp, err := te.ExecInspect(ctx, x); err != nil || resp.ExitCode == nil || *resp.ExitCode != 6 {
		t.Errorf("detached exec: %+v, %v", resp, err)
	}
	// One that is running when its container ends.
	x, err = te.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := te.ExecStart(ctx, x, ExecStartOptions{Detach: true}); err != nil {
		t.Fatal(err)
	}
	if ids := te.inspect(id).ExecIDs; !slices.Contains(ids, x) {
		t.Errorf("running execs %v", ids)
	}
	if err := te.stopIn(id, 0); err != nil {
		t.Fatal(err)
	}
	if resp, err := te.ExecInspect(ctx, x); err != nil || resp.Running || resp.ExitCode == nil || *resp.ExitCode != 137 {
		t.Errorf("exec of an ended container: %+v, %v", resp, err)
	}
}

func TestOldExecsAreForgotten(t *testing.T) {
	te := newTestEngine(t)
	id := te.run("", request("sleep", "1000"))
	for range execKeep + 5 {
		te.exec(id, "true")
	}
	c, err := te.containers.get(id)
	if err != nil {
		t.Fatal(err)
	}
	// Who waits for the end of an exec goes on before the others are looked through.
	for end := time.Now().Add(time.Minute); ; runtime.Gosched() {
		c.mu.Lock()
		n := len(c.execs)
		c.mu.Unlock()
		if n <= execKeep {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d execs are remembered", n)
		}
	}
}

func TestFollowLogsOverRotation(t *testing.T) {
	te := newTestEngine(t)
	const lines = 3000
	req := request("seq", fmt.Sprint(lines))
	req.HostConfig.LogConfig = container.LogConfig{Type: logJSONFile, Config: map[string]string{"max-size": "20k", "max-file": "50"}}
	id := te.create("", req)
	var out logLines
	done := make(chan error, 1)
	if err := te.ContainerStart(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	go func() {
		done <- te.ContainerLogs(t.Context(), id, LogsOptions{Stdout: true, Follow: true, Tail: -1}, &out)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for n := 1; n <= lines; n++ {
		fmt.Fprintln(&want, n)
	}
	if out.String() != want.String() {
		t.Errorf("followed %d bytes, want %d", out.Len(), want.Len())
	}
	if got, _ := te.logs(id); got != want.String() {
		t.Errorf("logged %d bytes, want %d", len(got), want.Len())
	}
	if out.begun != 1 {
		t.Errorf("begun %d times", out.begun)
	}
}

func TestNoLog(t *testing.T) {
	te := newTestEngine(t)
	req := request("echo", "x")
	req.HostConfig.LogConfig.Type = logNone
	id := te.run("", req)
	te.wait(id, container.WaitConditionNotRunning)
	err := te.ContainerLogs(t.Context(), id, LogsOptions{Stdout: true, Tail: -1}, &logLines{})
	if !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("logs of driver none: %v", err)
	}
}

func TestRestartPolicy(t *testing.T) {
	te := newTestEngine(t)
	req := request("sh", "-c", "echo again; exit 3")
	req.HostConfig.RestartPolicy = container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}
	ch, err := te.Subscribe(t.Context(), filter("event", "die"), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	id := te.run("", req)
	for range 3 {
		<-ch
	}
	te.wait(id, container.WaitConditionNotRunning)
	got := te.inspect(id)
	if got.RestartCount != 2 || got.State.Status != stateExited || got.State.ExitCode != 3 {
		t.Errorf("after the retries: count %d, %+v", got.RestartCount, got.State)
	}
	if out, _ := te.logs(id); out != "again\nagain\nagain\n" {
		t.Errorf("logged %q", out)
	}
	if err := te.ContainerStart(t.Context(), id); err != nil { // a user's start counts anew
		t.Fatal(err)
	}
	for range 3 {
		<-ch
	}
	te.wait(id, container.WaitConditionNotRunning)
	if got := te.inspect(id); got.RestartCount != 2 {
		t.Errorf("after another start: count %d", got.RestartCount)
	}
	req = request("true")
	req.HostConfig.RestartPolicy.Name = "always"
	id = te.run("always", req)
	<-ch
	if err := te.stopIn(id, 0); err != nil && !errors.Is(err, errdefs.ErrNotModified) {
		t.Fatal(err)
	}
	if st := te.inspect(id).State; st.Status != stateExited {
		t.Errorf("stopped while restarting: %+v", st)
	}
	if err := te.ContainerRemove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Errorf("remove after that: %v", err)
	}
}

func TestRename(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	id, other := te.create("old", request("true")), te.create("other", request("true"))
	if err := te.ContainerRename(ctx, "old", "new"); err != nil {
		t.Fatal(err)
	}
	if got := te.inspect("new"); got.ID != id || got.Name != "/new" {
		t.Errorf("renamed: %s %s", got.ID, got.Name)
	}
	if err := te.ContainerRename(ctx, "new", "other"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("rename to a taken name: %v", err)
	}
	if err := te.ContainerRename(ctx, other, "old"); err != nil {
		t.Errorf("rename to the name that became free: %v", err)
	}
}

func TestCommitAndExport(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	req := request("sh", "-c", "echo catch > /hold; mkdir /net; echo ready; exec sleep 1000")
	req.HostConfig.Tmpfs = map[string]string{"/net": ""}
	id := te.run("boat", req)
	te.awaitLog(id, "ready")
	image, err := te.ContainerCommit(ctx, CommitOptions{Container: id, Ref: "boat:2", Comment: "c", Changes: []string{"CMD cat /hold", "ENV X=1"}, Pause: true})
	if err != nil {
		t.Fatal(err)
	}
	if !te.inspect(id).State.Running {
		t.Error("not running after commit")
	}
	got, err := te.ImageInspect(ctx, "boat:2")
	if err != nil || got.ID != image || !slices.Contains(got.Config.Env, "X=1") {
		t.Errorf("image %+v, %v", got, err)
	}
	if out, _ := te.output(&container.CreateRequest{Config: &container.Config{Image: "boat:2"}, HostConfig: &container.HostConfig{NetworkMode: "none"}}); out != "catch\n" {
		t.Errorf("container of the commit printed %q", out)
	}
	for _, running := range []bool{true, false} {
		if !running {
			if err := te.stopIn(id, 0); err != nil {
				t.Fatal(err)
			}
		}
		var b bytes.Buffer
		if err := te.ContainerExport(ctx, id, &b); err != nil {
			t.Fatal(err)
		}
		names := tarNames(t, &b)
		if names["hold"] != "catch\n" || names["bin/sh"] != "-> busybox" {
			t.Errorf("running %v: hold %q, sh %q", running, names["hold"], names["bin/sh"])
		}
		for name := range names {
			if strings.HasPrefix(name, "proc/") && name != "proc/" || strings.HasPrefix(name, "sys/") && name != "sys/" {
				t.Errorf("running %v: exported %s", running, name)
			}
		}
	}
}

func tarNames(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	names := map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(io.LimitReader(tr, 100))
		if err != nil {
			t.Fatal(err)
		}
		names[h.Name] = string(data)
		if h.Typeflag == tar.TypeSymlink {
			names[h.Name] = "-> " + h.Linkname
		}
	}
}

func TestListAndPrune(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	label := request("true")
	label.Labels = map[string]string{"fleet": "red"}
	done := te.run("done", label)
	te.wait(done, container.WaitConditionNotRunning)
	fresh := te.create("fresh", request("true"))
	running := te.run("running", request("sleep", "1000"))
	for _, tc := range []struct {
		opt  ListOptions
		want string
	}{
		{ListOptions{}, "running"},
		{ListOptions{All: true}, "running fresh done"},
		{ListOptions{Limit: 2}, "running fresh"},
		{ListOptions{Filters: filter("status", "exited")}, "done"},
		{ListOptions{Filters: filter("status", "created", "status", "running")}, "running fresh"},
		{ListOptions{All: true, Filters: filter("name", "^r")}, "running"},
		{ListOptions{All: true, Filters: filter("label", "fleet=red")}, "done"},
		{ListOptions{All: true, Filters: filter("exited", "0")}, "done"},
		{ListOptions{All: true, Filters: filter("since", done)}, "running fresh"},
		{ListOptions{All: true, Filters: filter("before", fresh)}, "done"},
		{ListOptions{All: true, Filters: filter("ancestor", "busybox")}, "running fresh done"},
		{ListOptions{All: true, Filters: filter("ancestor", "nothing")}, ""},
		{ListOptions{All: true, Filters: filter("network", "none")}, "running fresh done"},
	} {
		list, err := te.ContainerList(ctx, tc.opt)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range list {
			names = append(names, s.Names[0][1:])
		}
		if got := strings.Join(names, " "); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.opt, got, tc.want)
		}
	}
	if _, err := te.ContainerList(ctx, ListOptions{Filters: filter("colour", "red")}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("unknown filter: %v", err)
	}
	info, err := te.Info(ctx)
	if err != nil || info.Containers != 3 || info.ContainersRunning != 1 || info.ContainersStopped != 2 || info.Images != 1 {
		t.Errorf("info %+v, %v", info, err)
	}
	usage, err := te.DiskUsage(ctx)
	if err != nil || usage.ContainerUsage.TotalCount != 3 || usage.ImageUsage.ActiveCount != 1 || usage.ImageUsage.TotalSize == 0 {
		t.Errorf("disk usage %+v, %v", usage, err)
	}
	if _, err := te.ImageRemove(ctx, "busybox", ImageRemoveOptions{}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("remove the image of a running container: %v", err)
	}
	report, err := te.ContainerPrune(ctx, nil)
	if err != nil || len(report.ContainersDeleted) != 2 || slices.Contains(report.ContainersDeleted, running) {
		t.Errorf("pruned %+v, %v", report, err)
	}
}

func TestEventsOfALife(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	start := time.Now()
	req := request("sh", "-c", "sleep 1000")
	req.Labels = map[string]string{"fleet": "red"}
	id := te.run("ship", req)
	te.exec(id, "true")
	for _, err := range []error{te.ContainerPause(ctx, id), te.ContainerUnpause(ctx, id), te.stopIn(id, 0), te.ContainerRemove(ctx, id, RemoveOptions{})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ch, err := te.Subscribe(ctx, filter("container", "ship"), start, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for m := range ch {
		got = append(got, string(m.Action))
		if m.Actor.ID != id || m.Actor.Attributes["image"] != "busybox" || m.Actor.Attributes["fleet"] != "red" || m.Scope != "local" {
			t.Errorf("event %+v", m)
		}
	}
	want := "create, start, exec_create: true, exec_start: true, exec_die, pause, unpause, kill, die, stop, destroy"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("events %s\nwant   %s", s, want)
	}
}

func TestManyAtOnce(t *testing.T) {
	te := newTestEngine(t)
	const n = 20
	errs := make(chan error, n)
	for i := range n {
		go func() {
			req := request("sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
			req.HostConfig.NetworkMode = "bridge"
			errs <- func() error {
				resp, err := te.ContainerCreate(t.Context(), fmt.Sprintf("many%d", i), req, nil)
				if err != nil {
					return err
				}
				ch, err := te.ContainerWait(t.Context(), resp.ID, container.WaitConditionNextExit)
				if err != nil {
					return err
				}
				if err := te.ContainerStart(t.Context(), resp.ID); err != nil {
					return err
				}
				if r := <-ch; int(r.StatusCode) != i {
					return fmt.Errorf("container %d exited %d", i, r.StatusCode)
				}
				var out logLines
				if err := te.ContainerLogs(t.Context(), resp.ID, LogsOptions{Stdout: true, Tail: -1}, &out); err != nil {
					return err
				}
				if out.String() != fmt.Sprintf("%d\n", i) {
					return fmt.Errorf("container %d printed %q", i, out.String())
				}
				return te.ContainerRemove(t.Context(), resp.ID, RemoveOptions{})
			}()
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
