package engine

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

func TestIDRanges(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := uint32(builtinIDs.first)
	for name, tc := range map[string]struct {
		ranges *idRanges
		want   []idMapping // for 1000 ids each
		full   bool        // after that
	}{
		"built in": {&idRanges{subuid: "/none", subgid: "/none"}, []idMapping{{first, first, 1000}, {first + 1000, first + 1000, 1000}}, false},
		"others are spared": {&idRanges{subuid: file("a", fmt.Sprintf("# note\nann:%d:500\n", first+200)), subgid: "/none"},
			[]idMapping{{first + 700, first, 1000}}, false},
		"berth's own": {&idRanges{subuid: file("b", "ann:1:5\nberth:100000:1500\nberth:300000:1000\n"), subgid: file("c", "berth:200000:2500\n")},
			[]idMapping{{100000, 200000, 1000}, {300000, 201000, 1000}}, true},
		"configured": {&idRanges{configured: "5000:1999"}, []idMapping{{5000, 5000, 1000}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			for i, want := range tc.want {
				got, err := tc.ranges.assign(fmt.Sprint(i), 1000)
				if err != nil || *got != want {
					t.Fatalf("container %d: %+v, %v, want %+v", i, got, err, want)
				}
			}
			_, err := tc.ranges.assign("more", 1000)
			if tc.full != errors.Is(err, errdefs.ErrUnavailable) {
				t.Errorf("one more: %v", err)
			}
			tc.ranges.release("0")
			if got, err := tc.ranges.assign("again", 1000); err != nil || *got != tc.want[0] {
				t.Errorf("after a release: %+v, %v", got, err)
			}
		})
	}
	if _, err := (&idRanges{configured: "0:10"}).assign("x", 1); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("the host's root given away: %v", err)
	}
}

// needMapped skips where the tests' file system, a tmpfs, cannot be mapped.
func needMapped(t *testing.T) {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &major, &minor)
	if major < 6 || major == 6 && minor < 3 {
		t.Skip("needs Linux 6.3: mapped mounts of a tmpfs")
	}
}

// auto is a request with a user namespace.
func auto(cmd ...string) *container.CreateRequest {
	req := request(cmd...)
	req.HostConfig.UsernsMode = usernsAuto
	return req
}

func TestUserNamespace(t *testing.T) {
	needMapped(t)
	te := newTestEngine(t)
	id := te.run("", auto("sh", "-c", `id -u; stat -c '%u:%g' /bin/busybox /home/sailor/chart /etc/hosts
		touch /new && stat -c %u /new; busybox chown sailor:crew /new && stat -c '%u:%g' /new; echo x >> /home/sailor/chart && stat -c %u /home/sailor/chart
		cat /proc/self/uid_map; echo ready; exec sleep 1000`))
	rec := te.snapshot(id)
	te.awaitLog(id, "ready")
	out, errs := te.logs(id)
	want := "0\n0:0\n1000:1000\n0:0\n0\n1000:2000\n1000\n"
	if m := fmt.Sprintf("%10d %10d %10d\n", 0, rec.IDs.UID, rec.IDs.Size); !strings.HasPrefix(out, want+m) {
		t.Errorf("printed %q, want %q and the rest; stderr %q", out, want+m, errs)
	}
	// The kernel says who it is on the host.
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", rec.State.Pid))
	if err != nil || !strings.Contains(string(status), fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t", rec.IDs.UID)) {
		t.Errorf("status on the host: %s, %v", status, err)
	}
	// What was made has the container's owners on disk, whoever looks.
	var st unix.Stat_t
	upper := filepath.Join(testConfig(te.dir).StateRoot, "image/containers", id, "upper/new")
	if err := unix.Stat(upper, &st); err != nil || st.Uid != 1000 || st.Gid != 2000 {
		t.Errorf("on disk: %d:%d, %v", st.Uid, st.Gid, err)
	}
	if out, code := te.exec(id, "sh", "-c", "id -u; stat -c %u /new"); out != "0\n1000\n" || code != 0 {
		t.Errorf("exec: %q, %d", out, code)
	}
	if out, code := te.execRequest(id, &container.ExecCreateRequest{Cmd: []string{"id", "-u"}, User: "sailor", AttachStdout: true}); out != "1000\n" || code != 0 {
		t.Errorf("exec as another user: %q, %d", out, code)
	}
	if uid := te.exported(id, "new"); uid != 1000 {
		t.Errorf("exported while it runs: owner %d", uid)
	}
	te.stopNow(id)
	if uid := te.exported(id, "new"); uid != 1000 {
		t.Errorf("exported when it is stopped: owner %d", uid)
	}
	te.commitMapped(id)
}

// stopNow stops a container.
func (te *testEngine) stopNow(id string) {
	te.t.Helper()
	zero := 0
	if err := te.ContainerStop(te.t.Context(), id, StopOptions{Timeout: &zero}); err != nil {
		te.t.Fatal(err)
	}
}

// exported is the owner of a file in a container's export.
func (te *testEngine) exported(id, name string) int {
	te.t.Helper()
	var b bytes.Buffer
	if err := te.ContainerExport(te.t.Context(), id, &b); err != nil {
		te.t.Fatal(err)
	}
	for r := tar.NewReader(&b); ; {
		hdr, err := r.Next()
		if err == io.EOF {
			te.t.Errorf("export has no %s", name)
			return -1
		}
		if err != nil {
			te.t.Fatal(err)
		}
		if hdr.Name == name {
			return hdr.Uid
		}
	}
}

// commitMapped: an image of the container serves one without the mapping.
func (te *testEngine) commitMapped(id string) {
	t := te.t
	if _, err := te.ContainerCommit(t.Context(), CommitOptions{Container: id, Ref: "mapped"}); err != nil {
		t.Fatal(err)
	}
	for _, req := range []*container.CreateRequest{request("stat", "-c", "%u:%g", "/new"), auto("stat", "-c", "%u:%g", "/new")} {
		req.Image = "mapped"
		if out, code := te.output(req); out != "1000:2000\n" || code != 0 {
			t.Errorf("from the image: %q, %d", out, code)
		}
	}
	// And the container starts again, with the same ids.
	before := te.snapshot(id).IDs
	if err := te.ContainerStart(t.Context(), id); err != nil || *te.snapshot(id).IDs != *before {
		t.Errorf("start again: %v", err)
	}
}

func TestUserNamespaceWithNetworkAndVolumes(t *testing.T) {
	needMapped(t)
	te := newTestEngine(t)
	host := t.TempDir()
	if err := os.Chmod(host, 0o755); err != nil {
		t.Fatal(err)
	}
	req := auto("sh", "-c", `stat -c %u /vol /plain /mapped; touch /vol/f && echo vol; touch /plain/f 2>/dev/null || echo not
		touch /mapped/g && echo mapped; cat /proc/sys/net/ipv4/ping_group_range; ip addr | grep -c 'inet 10.77'; echo x > /dev/none && echo device
		ls /sys/class/net | grep -c eth0; stat -c %u /dev/mqueue /dev/shm`)
	req.HostConfig.NetworkMode = "bridge"
	req.Config.Volumes = map[string]struct{}{"/vol": {}}
	req.HostConfig.Binds = []string{host + ":/plain", host + ":/mapped:idmap"}
	req.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/none"}}
	want := "0\n65534\n0\nvol\nnot\nmapped\n0\t65535\n1\ndevice\n1\n0\n0\n"
	if out, code := te.output(req); out != want {
		t.Errorf("printed %q (exit %d), want %q", out, code, want)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(host, "g"), &st); err != nil || st.Uid != 0 {
		t.Errorf("on the host: owner %d, %v", st.Uid, err)
	}
	// Two at once have different ids, a fresh one those of a removed one.
	a, b := te.create("", auto("true")), te.create("", auto("true"))
	if ia, ib := te.snapshot(a).IDs, te.snapshot(b).IDs; ia.UID+ia.Size > ib.UID {
		t.Errorf("ids %+v and %+v overlap", ia, ib)
	}
}

func TestUserNamespaceRefused(t *testing.T) {
	needMapped(t)
	te := newTestEngine(t)
	for name, tc := range map[string]struct {
		set  func(r *container.CreateRequest)
		text string
	}{
		"mode":       {func(r *container.CreateRequest) { r.HostConfig.UsernsMode = "mine" }, "invalid USER mode: mine"},
		"size":       {func(r *container.CreateRequest) { r.HostConfig.UsernsMode = "auto:size=1" }, "invalid USER mode"},
		"privileged": {func(r *container.CreateRequest) { r.HostConfig.Privileged = true }, "privileged mode is incompatible"},
		"network":    {func(r *container.CreateRequest) { r.HostConfig.NetworkMode = "host" }, "network namespace is incompatible"},
		"pid":        {func(r *container.CreateRequest) { r.HostConfig.PidMode = "host" }, "PID namespace is incompatible"},
		"too many":   {func(r *container.CreateRequest) { r.HostConfig.UsernsMode = "auto:size=4000000000" }, "no 4000000000 ids are free"},
		"idmap alone": {func(r *container.CreateRequest) {
			r.HostConfig.UsernsMode, r.HostConfig.Binds = "host", []string{"/tmp:/x:idmap"}
		}, "idmap without a user namespace"},
	} {
		req := auto("true")
		tc.set(req)
		if _, err := te.ContainerCreate(t.Context(), "", req, nil); err == nil || !strings.Contains(err.Error(), tc.text) || errdefs.Hint(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A user the namespace has no id for.
	req := auto("true")
	req.HostConfig.UsernsMode, req.User = "auto:size=100", "1000"
	id := te.create("", req)
	if err := te.ContainerStart(t.Context(), id); err == nil || !strings.Contains(err.Error(), "id 1000 is outside") {
		t.Errorf("user: %v", err)
	}
	// By default, and told not to.
	te.cfg.Userns = usernsAuto
	if out, _ := te.output(request("sh", "-c", "head -1 /proc/self/uid_map")); strings.HasPrefix(out, "         0          0 ") {
		t.Errorf("no namespace by default: %q", out)
	}
	req = request("sh", "-c", "head -1 /proc/self/uid_map")
	req.HostConfig.UsernsMode = usernsHost
	if out, _ := te.output(req); !strings.HasPrefix(out, "         0          0 ") {
		t.Errorf("a namespace though host was asked for: %q", out)
	}
}

// TestUserNamespaceCopyIn: what is copied into a running container belongs
// inside to whom the archive says, as it does when the container is stopped.
func TestUserNamespaceCopyIn(t *testing.T) {
	needMapped(t)
	te := newTestEngine(t)
	host := t.TempDir()
	req := auto("sh", "-c", "echo ready; exec sleep 1000")
	req.Config.Volumes = map[string]struct{}{"/vol": {}}
	req.HostConfig.Tmpfs = map[string]string{"/mem": ""}
	req.HostConfig.Binds = []string{host + ":/bind"}
	req.HostConfig.UsernsMode = "auto:size=30000"
	id := te.run("", req)
	te.awaitLog(id, "ready")
	ids := te.snapshot(id).IDs
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, hdr := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "hold", Mode: 0o750, Uid: 1000, Gid: 2000},
		{Typeflag: tar.TypeReg, Name: "hold/barrel", Mode: 0o640, Uid: 1000, Gid: 2000},
		{Typeflag: tar.TypeSymlink, Name: "hold/link", Linkname: "barrel", Mode: 0o777, Uid: 7, Gid: 8},
		{Typeflag: tar.TypeLink, Name: "hold/again", Linkname: "hold/barrel", Mode: 0o640},
		{Typeflag: tar.TypeReg, Name: "deep/below/file", Mode: 0o600},
	} {
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/root", "/vol", "/mem", "/bind"} {
		if err := te.ContainerExtract(t.Context(), id, dir, bytes.NewReader(b.Bytes()), ExtractOptions{}); err != nil {
			t.Fatalf("into %s: %v", dir, err)
		}
		out, _ := te.exec(id, "sh", "-c", "cd "+dir+" && stat -c '%n %u:%g %h' hold hold/barrel hold/link deep/below deep/below/file")
		want := "hold 1000:2000 2\nhold/barrel 1000:2000 2\nhold/link 7:8 1\ndeep/below 0:0 2\ndeep/below/file 0:0 1\n"
		if out != want {
			t.Errorf("in %s: %q, want %q", dir, out, want)
		}
	}
	var st unix.Stat_t
	upper := filepath.Join(testConfig(te.dir).StateRoot, "image/containers", id, "upper/root/hold/barrel")
	if err := unix.Stat(upper, &st); err != nil || st.Uid != 1000 {
		t.Errorf("on disk: %d, %v", st.Uid, err)
	}
	if err := unix.Stat(filepath.Join(host, "hold"), &st); err != nil || st.Uid != ids.UID+1000 {
		t.Errorf("in the host's directory: %d, %v; the container's ids are %+v", st.Uid, err, ids)
	}
	if uid := te.exported(id, "root/hold/barrel"); uid != 1000 {
		t.Errorf("exported: %d", uid)
	}
	te.checkOwnerOutside(id)
}

// checkOwnerOutside: an owner that the container has no id for is refused.
func (te *testEngine) checkOwnerOutside(id string) {
	te.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o600, Uid: 40000}), w.Close()); err != nil {
		te.t.Fatal(err)
	}
	err := te.ContainerExtract(te.t.Context(), id, "/root", &b, ExtractOptions{})
	if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "owner 40000:0 is outside") || errdefs.Hint(err) == "" {
		te.t.Errorf("an owner outside: %v", err)
	}
}

// TestUserNamespaceShared: containers in one user namespace have the same ids,
// share what else belongs to it, and the ids stay theirs until the last is gone.
func TestUserNamespaceShared(t *testing.T) {
	needMapped(t)
	te := newTestEngine(t)
	first := auto("sh", "-c", "echo ready; exec sleep 1000")
	first.HostConfig.IpcMode = "shareable"
	one := te.run("one", first)
	te.awaitLog(one, "ready")
	namespace := func(id, kind string) string {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", te.snapshot(id).State.Pid, kind))
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	shared := func(set func(*container.HostConfig)) *container.CreateRequest {
		req := request("sh", "-c", "id -u; stat -c %u /home/sailor/chart; touch /n; ip addr | grep -c 'inet 10.77'; echo ready; exec sleep 1000")
		req.HostConfig.UsernsMode = "container:one"
		set(req.HostConfig)
		return req
	}
	for name, tc := range map[string]struct {
		set  func(*container.HostConfig)
		with []string // the namespaces shared
		inet string
	}{
		"alone":  {func(*container.HostConfig) {}, nil, "0"},
		"bridge": {func(h *container.HostConfig) { h.NetworkMode = "bridge" }, nil, "1"},
		"all": {func(h *container.HostConfig) {
			h.NetworkMode, h.PidMode, h.IpcMode = "container:one", "container:one", "container:one"
		}, []string{"net", "pid", "ipc"}, "0"},
	} {
		id := te.run("", shared(tc.set))
		te.awaitLog(id, "ready")
		if out, errs := te.logs(id); out != "0\n1000\n"+tc.inet+"\nready\n" {
			t.Errorf("%s: printed %q, %q", name, out, errs)
		}
		if *te.snapshot(id).IDs != *te.snapshot(one).IDs {
			t.Errorf("%s: ids %+v, the other has %+v", name, te.snapshot(id).IDs, te.snapshot(one).IDs)
		}
		for _, kind := range []string{"user", "net", "pid", "ipc", "mnt"} {
			want := kind == "user" || strings.Contains(fmt.Sprint(tc.with), kind)
			if got := namespace(id, kind) == namespace(one, kind); got != want {
				t.Errorf("%s: the same %s namespace: %v", name, kind, got)
			}
		}
		if out, code := te.exec(id, "id", "-u"); out != "0\n" || code != 0 {
			t.Errorf("%s: exec printed %q, %d", name, out, code)
		}
	}
	te.checkSharedEnds(one, shared(func(*container.HostConfig) {}))
}

// checkSharedEnds: without the other a container does not start, and keeps its ids.
func (te *testEngine) checkSharedEnds(one string, req *container.CreateRequest) {
	t := te.t
	id, ids := te.create("", req), *te.snapshot(one).IDs
	if mode := te.inspect(id).HostConfig.UsernsMode; string(mode) != "container:"+one {
		t.Errorf("inspect shows %s", mode)
	}
	host := te.create("plain", request("true"))
	joined := request("sh", "-c", "head -1 /proc/self/uid_map")
	joined.HostConfig.UsernsMode = "container:plain"
	if out, _ := te.output(joined); !strings.HasPrefix(out, "         0          0 ") {
		t.Errorf("the namespace of a container in the host's: %q", out)
	}
	for text, set := range map[string]func(*container.HostConfig){
		"privileged mode is incompatible":         func(h *container.HostConfig) { h.Privileged = true },
		"network namespace is incompatible":       func(h *container.HostConfig) { h.NetworkMode = container.NetworkMode("container:" + host) },
		"no such container: nobody":               func(h *container.HostConfig) { h.UsernsMode = "container:nobody" },
		"shares the user namespace of another":    func(h *container.HostConfig) { h.UsernsMode = container.UsernsMode("container:" + id) },
		"invalid USER mode: container:":           func(h *container.HostConfig) { h.UsernsMode = "container:" },
		"sharing a PID namespace is incompatible": func(h *container.HostConfig) { h.PidMode = "host" },
	} {
		bad := request("true")
		bad.HostConfig.UsernsMode = "container:one"
		set(bad.HostConfig)
		if _, err := te.ContainerCreate(t.Context(), "", bad, nil); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	te.stopNow(one)
	if err := te.ContainerStart(t.Context(), id); err == nil || !strings.Contains(errdefs.Hint(err), "start that container first") {
		t.Errorf("start without the other: %v", err)
	}
	if err := te.ContainerRemove(t.Context(), one, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if other := te.create("", auto("true")); te.snapshot(other).IDs.UID == ids.UID {
		t.Errorf("ids %+v were given away while a container has them", ids)
	}
}
