package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

// bound is a request with binds.
func bound(req *container.CreateRequest, binds ...string) *container.CreateRequest {
	req.HostConfig.Binds = binds
	return req
}

// mounted is a request with one --mount.
func mounted(req *container.CreateRequest, m mount.Mount) *container.CreateRequest {
	req.HostConfig.Mounts = []mount.Mount{m}
	return req
}

// TestNamedVolume: it is made with the first container and the image's files,
// kept with its content, shared, and not removed while a container has it.
func TestNamedVolume(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	first := te.run("first", bound(request("sh", "-c", "stat -c '%u %a' /home/sailor/chart; echo log > /home/sailor/log"), "data:/home/sailor"))
	te.wait(first, container.WaitConditionNotRunning)
	if out, _ := te.logs(first); out != "1000 640\n" {
		t.Errorf("copied from the image: %q", out)
	}
	m := te.inspect(first).Mounts
	if len(m) != 1 || m[0].Type != mount.TypeVolume || m[0].Name != "data" || m[0].Driver != "local" || !m[0].RW {
		t.Errorf("mounts %+v", m)
	}
	err := te.VolumeRemove(ctx, "data", true)
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "first") {
		t.Errorf("remove in use: %v", err)
	}
	if err := te.ContainerRemove(ctx, first, RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if out, _ := te.output(bound(request("sh", "-c", "cat /v/log; echo x > /v/y"), "data:/v:ro")); out != "log\n" {
		t.Errorf("read-only in the second: %q", out)
	}
	if _, err := os.Stat(filepath.Join(te.volumesDir(), "data", "_data", "y")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("written through a read-only volume: %v", err)
	}
	if out, _ := te.output(bound(request("ls", "/home/sailor"), "empty:/home/sailor:nocopy")); out != "" {
		t.Errorf("nocopy was filled with %q", out)
	}
	list, err := te.VolumeList(ctx, filter("name", "^data$"))
	if err != nil || len(list) != 1 || list[0].Mountpoint != m[0].Source {
		t.Errorf("list %+v, %v", list, err)
	}
	usage, err := te.DiskUsage(ctx)
	if err != nil || usage.VolumeUsage.TotalCount != 2 || usage.VolumeUsage.ActiveCount != 0 || usage.VolumeUsage.Items[0].UsageData.Size == 0 {
		t.Errorf("usage %+v, %v", usage.VolumeUsage, err)
	}
	if report, err := te.VolumePrune(ctx, nil); err != nil || len(report.VolumesDeleted) != 0 {
		t.Errorf("prune took named volumes: %+v, %v", report, err)
	}
	report, err := te.VolumePrune(ctx, filter("all", "true"))
	if err != nil || !slices.Equal(report.VolumesDeleted, []string{"data", "empty"}) || report.SpaceReclaimed == 0 {
		t.Errorf("prune all: %+v, %v", report, err)
	}
}

// TestVolumesFrom: another container's mounts, also its anonymous ones, which
// go with the last of both.
func TestVolumesFrom(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	src := bound(request("true"), "named:/n", "/etc:/hostetc:ro")
	src.Volumes = map[string]struct{}{"/anon": {}}
	owner := te.create("owner", src)
	heir := request("sh", "-c", "echo a > /anon/f; echo n > /n/f; test -e /hostetc/passwd && echo bound; echo x > /own/f")
	heir.HostConfig.VolumesFrom = []string{"owner"}
	heir.HostConfig.Binds = []string{"own:/own"}
	id := te.run("heir", heir)
	te.wait(id, container.WaitConditionNotRunning)
	if out, _ := te.logs(id); out != "bound\n" {
		t.Errorf("printed %q", out)
	}
	ro := request("sh", "-c", "cat /anon/f; echo x > /anon/g || echo refused")
	ro.HostConfig.VolumesFrom = []string{"owner:ro"}
	if out, _ := te.output(ro); out != "a\nrefused\n" {
		t.Errorf("read-only: %q", out)
	}
	anon := te.inspect(owner).Mounts[0]
	if err := te.ContainerRemove(ctx, owner, RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(anon.Source); err != nil {
		t.Errorf("a volume in use by another was removed: %v", err)
	}
	if err := te.ContainerRemove(ctx, id, RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(anon.Source); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the anonymous volume is left: %v", err)
	}
	bad := request("true")
	bad.HostConfig.VolumesFrom = []string{"nobody"}
	if _, err := te.ContainerCreate(ctx, "", bad, nil); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("from nobody: %v", err)
	}
}

// TestVolumeOfTmpfs: a volume with a file system of its own is shared by those
// who run, and mounted no longer than one of them does; also past the engine.
func TestVolumeOfTmpfs(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	v, err := te.VolumeCreate(ctx, &volume.CreateRequest{Name: "mem", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}})
	if err != nil {
		t.Fatal(err)
	}
	attached := func() bool {
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, v.Mountpoint, 0, 0, &st); err != nil {
			t.Fatal(err)
		}
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	one := te.run("one", bound(request("sh", "-c", "echo here > /m/f; sleep 1000"), "mem:/m"))
	two := te.run("two", bound(request("sh", "-c", "until test -e /m/f; do usleep 10000; done; grep -c /m.tmpfs /proc/mounts; sleep 1000"), "mem:/m"))
	if out, _ := te.exec(two, "sh", "-c", "until test -e /m/f; do usleep 10000; done; cat /m/f"); out != "here\n" {
		t.Errorf("the other sees %q", out)
	}
	if err := te.ContainerRemove(ctx, one, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := te.Close(); err != nil {
		t.Fatal(err)
	}
	te.open()
	if !attached() {
		t.Error("not mounted, though a container runs on it")
	}
	if err := te.ContainerRemove(ctx, two, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if attached() {
		t.Error("still mounted, though nobody uses it")
	}
	if err := te.VolumeRemove(ctx, "mem", false); err != nil {
		t.Error(err)
	}
}

// TestVolumeSubpath: a directory within a volume, and no way out of it: not
// by a link, nor by one that is swapped in while containers start.
func TestVolumeSubpath(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	v, err := te.VolumeCreate(ctx, &volume.CreateRequest{Name: "tree"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(v.Mountpoint, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.Mountpoint, "a", "b", "f"), []byte("within\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := func(sub string) mount.Mount {
		return mount.Mount{Type: mount.TypeVolume, Source: "tree", Target: "/m", VolumeOptions: &mount.VolumeOptions{Subpath: sub}}
	}
	for _, sub := range []string{"a/b", "a/b/f"} {
		if out, code := te.output(mounted(request("sh", "-c", "cat /m/f 2>/dev/null || cat /m"), at(sub))); out != "within\n" || code != 0 {
			t.Errorf("%s: %q, %d", sub, out, code)
		}
	}
	for link, target := range map[string]string{"up": "..", "abs": "/", "proc": "/proc/self/root"} {
		if err := os.Symlink(target, filepath.Join(v.Mountpoint, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"up", "abs/etc", "proc/etc", "none"} {
		id := te.create("", mounted(request("ls", "/m"), at(sub)))
		if err := te.ContainerStart(ctx, id); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", sub, err)
		}
	}
	for _, sub := range []string{"../x", "/etc", "a/../.."} {
		if _, err := te.ContainerCreate(ctx, "", mounted(request("true"), at(sub)), nil); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", sub, err)
		}
	}
	swap(t, filepath.Join(v.Mountpoint, "a"), filepath.Join(v.Mountpoint, "abs"))
	root, err := os.Open(v.Mountpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for range 5000 {
		f, err := openSubpath(root, "a/bin") // not in the volume; in the host's root, where the link leads
		if err == nil {
			t.Fatalf("opened %s outside of the volume", f.Name())
		}
	}
}

// swap exchanges two paths over and over until the test ends.
func swap(t *testing.T, a, b string) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
					t.Errorf("swap: %v", err)
					return
				}
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
	})
}

// TestImageMount: another image's files in a container, read-only, and the
// image stays as long as the container does.
func TestImageMount(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	if _, err := te.ImageImport(ctx, busyboxTar(t), ImageImportOptions{Ref: "cargo", Message: "another"}); err != nil {
		t.Fatal(err)
	}
	m := mount.Mount{Type: mount.TypeImage, Source: "cargo", Target: "/cargo"}
	id := te.run("", mounted(request("sleep", "1000"), m))
	if _, err := te.ImageRemove(ctx, "cargo", ImageRemoveOptions{}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("remove the image of a mount: %v", err)
	}
	if out, _ := te.exec(id, "sh", "-c", "cat /cargo/home/sailor/chart; touch /cargo/x 2>/dev/null || echo refused"); out != "here be dragons\nrefused\n" {
		t.Errorf("printed %q", out)
	}
	checkMappedImage(t, te, m)
	m.ImageOptions = &mount.ImageOptions{Subpath: "home/sailor"}
	if out, _ := te.output(mounted(request("cat", "/cargo/chart"), m)); out != "here be dragons\n" {
		t.Errorf("subpath: %q", out)
	}
	m.Source = "nosuch"
	if _, err := te.ContainerCreate(ctx, "", mounted(request("true"), m), nil); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("no such image: %v", err)
	}
}

// checkMappedImage: with a user namespace the files of an image keep their owners.
func checkMappedImage(t *testing.T, te *testEngine, m mount.Mount) {
	t.Helper()
	needMapped(t)
	for sub, paths := range map[string]string{"": "/cargo/bin/busybox /cargo/home/sailor/chart", "home/sailor": "/bin/busybox /cargo/chart"} {
		m.ImageOptions = &mount.ImageOptions{Subpath: sub}
		out, code := te.output(mounted(auto("sh", "-c", "stat -c %u:%g "+paths+"; touch /cargo/x 2>/dev/null || echo refused"), m))
		if out != "0:0\n1000:1000\nrefused\n" {
			t.Errorf("mapped, of the directory %q: %q, exit %d", sub, out, code)
		}
	}
}

// TestVolumeEvents: what happens to a volume is told.
func TestVolumeEvents(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	ch, err := te.Subscribe(ctx, filter("type", "volume"), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	te.output(bound(request("true"), "data:/data"))
	if err := te.VolumeRemove(ctx, "data", false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []events.Action{events.ActionCreate, events.ActionMount, events.ActionUnmount, events.ActionDestroy} {
		if got := <-ch; got.Action != want || got.Actor.ID != "data" {
			t.Errorf("event %s of %s, want %s", got.Action, got.Actor.ID, want)
		}
	}
	for name, force := range map[string]bool{"data": true, "other": false} {
		if err := te.VolumeRemove(ctx, name, force); force != (err == nil) {
			t.Errorf("remove what is not there, force %v: %v", force, err)
		}
	}
}

// TestFailedCreateTakesItsVolumeAlong: what was made for a container that
// could not be made is gone with it.
func TestFailedCreateTakesItsVolumeAlong(t *testing.T) {
	te := newTestEngine(t)
	file := filepath.Join(te.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	req := bound(request("true"), "aaa:/aaa", file+"/below:/zzz") // the source's parent is a file
	if _, err := te.ContainerCreate(t.Context(), "", req, nil); err == nil {
		t.Fatal("created")
	}
	if list, err := te.VolumeList(t.Context(), nil); err != nil || len(list) != 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
}
