package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	volumetypes "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

// smallDisk has the test's engine keep its state on a file system of its own, which
// fill and drain make full and empty. What the engine made goes with it.
type smallDisk struct {
	*testEngine
	ballast string
}

func newSmallDisk(t *testing.T) *smallDisk {
	te := newTestEngine(t)
	if err := te.Close(); err != nil {
		t.Fatal(err)
	}
	state := testConfig(te.dir).StateRoot
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	mkdir(t, state)
	if err := unix.Mount("small", state, "tmpfs", 0, "size=48m,mode=711"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the test's directory is removed
		for _, c := range te.containers.all() {
			if err := te.ContainerRemove(context.Background(), c.id, RemoveOptions{Force: true, Volumes: true}); err != nil {
				t.Errorf("remove at the end: %v", err)
			}
		}
		if err := te.Close(); err != nil {
			t.Error(err)
		}
		// Detached: who looks for fs-verity leaves a file open until it is collected.
		if err := unix.Unmount(state, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		te.open() // for what looks for leftovers
	})
	te.open()
	if _, err := te.ImageImport(t.Context(), busyboxTar(t), ImageImportOptions{Ref: "busybox", Changes: []string{"CMD sh"}}); err != nil {
		t.Fatal(err)
	}
	return &smallDisk{te, filepath.Join(state, "ballast")}
}

// fill leaves no byte.
func (d *smallDisk) fill() {
	d.t.Helper()
	f, err := os.Create(d.ballast)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		d.t.Fatal(err)
	}
}

func (d *smallDisk) drain() {
	d.t.Helper()
	if err := os.Remove(d.ballast); err != nil {
		d.t.Fatal(err)
	}
}

// isSound fails the test for whatever a check finds.
func (d *smallDisk) isSound() {
	d.t.Helper()
	report, err := d.Check(d.t.Context(), false)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, f := range report.Findings {
		d.t.Errorf("found %s: %s", f.Object, f.Problem)
	}
}

// fileIn is an archive with one file.
func fileIn(t *testing.T, name, text string) *bytes.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))})
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b.Bytes())
}

// TestFullDisk: what needs room on a full disk says which disk, changes nothing, and
// works when there is room; what makes room works.
func TestFullDisk(t *testing.T) {
	d := newSmallDisk(t)
	ctx := t.Context()
	ship := d.run("ship", request("sh", "-c", "echo before; while read line; do echo $line; done; sleep 1000"))
	d.awaitLog(ship, "before") // on a full disk it would be lost
	made := d.create("made", request("true"))
	rest := d.create("rest", request("true"))
	if err := d.ContainerExtract(ctx, ship, "/", fileIn(t, "cargo", "older"), ExtractOptions{}); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 1<<20)
	acts := []struct {
		name string
		act  func() error
		// done tells whether it has happened.
		done func() bool
	}{
		{"create", func() error { _, err := d.ContainerCreate(ctx, "next", request("true"), nil); return err },
			func() bool { _, err := d.containers.get("next"); return err == nil }},
		{"start", func() error { return d.ContainerStart(ctx, made) },
			func() bool { return d.inspect(made).State.Status != stateCreated }},
		{"rename", func() error { return d.ContainerRename(ctx, ship, "vessel") },
			func() bool { return d.inspect(ship).Name == "/vessel" }},
		{"update", func() error {
			var upd container.UpdateConfig
			upd.Memory, upd.MemorySwap = 64<<20, 64<<20
			_, err := d.ContainerUpdate(ctx, ship, &upd)
			return err
		}, func() bool { return d.inspect(ship).HostConfig.Memory == 64<<20 }},
		{"commit", func() error {
			_, err := d.ContainerCommit(ctx, CommitOptions{Container: ship, Ref: "committed"})
			return err
		}, func() bool { _, err := d.ImageInspect(ctx, "committed"); return err == nil }},
		{"tag", func() error { return d.ImageTag(ctx, "busybox", "tagged") },
			func() bool { _, err := d.ImageInspect(ctx, "tagged"); return err == nil }},
		{"volume", func() error {
			_, err := d.VolumeCreate(ctx, &volumetypes.CreateRequest{Name: "hold"})
			return err
		}, func() bool { _, err := d.VolumeInspect(ctx, "hold"); return err == nil }},
		{"copy", func() error { return d.ContainerExtract(ctx, ship, "/", fileIn(t, "cargo", big), ExtractOptions{}) },
			func() bool { st, _, err := d.fetch(ship, "/cargo"); return err == nil && st.Size == int64(len(big)) }},
	}
	d.fill()
	for _, a := range acts {
		err := a.act()
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", a.name, err)
			continue
		}
		if hint := errdefs.Hint(err); !strings.Contains(hint, "make room") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v (%s)", a.name, err, hint)
		}
		if a.done() {
			t.Errorf("%s has failed and changed something", a.name)
		}
	}
	if err := d.ContainerRemove(ctx, rest, RemoveOptions{}); err != nil {
		t.Errorf("removing, which makes room: %v", err)
	}
	d.drain()
	d.isSound()
	if out, code := d.exec(ship, "cat", "/cargo"); code != 0 || out != "older" {
		t.Errorf("what was there is %q (%d)", out, code)
	}
	for _, a := range acts {
		if err := a.act(); err != nil || !a.done() {
			t.Errorf("%s, with room: %v", a.name, err)
		}
	}
	d.wait(made, container.WaitConditionNotRunning)
	d.fill()
	if err := d.stopIn(ship, 0); err != nil {
		t.Errorf("stop: %v", err)
	}
	if st := d.inspect(ship).State; st.Running {
		t.Errorf("stopped on a full disk: %+v", st)
	}
	d.drain()
	if out, _ := d.logs(ship); !strings.HasPrefix(out, "before\n") {
		t.Errorf("logged %q", out)
	}
	if err := d.ContainerStart(ctx, ship); err != nil {
		t.Errorf("start again: %v", err)
	}
	d.isSound()
}
