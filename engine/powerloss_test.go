package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/berth-containers/berth/fault"
	"github.com/moby/moby/api/types/container"
)

// copiesVar asks for all copies to be opened instead of every sixteenth.
const copiesVar = "BERTH_POWERLOSS_ALL"

// blackout copies the state root whenever something in it has been synced or renamed:
// what a disk would have after a loss of power at that moment.
type blackout struct {
	t     *testing.T
	state string
	dir   string // of the copies

	mu sync.Mutex
	// on while something is to be copied.
	on bool
	// facts must hold after the next start: what was acknowledged.
	facts  map[string]bool
	copies []copyOfState
}

type copyOfState struct {
	dir   string
	point fault.Point
	facts map[string]bool
}

func (b *blackout) at(p fault.Point) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.on {
		return
	}
	dir := filepath.Join(b.dir, fmt.Sprint(len(b.copies)))
	// What vanishes while it is copied is not in the copy.
	out, err := exec.Command("cp", "-a", "--reflink=auto", b.state, dir).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "No such file") {
		b.t.Errorf("copy at %s: %v\n%s", p, err, out)
	}
	b.copies = append(b.copies, copyOfState{dir, p, maps.Clone(b.facts)})
}

func (b *blackout) watch(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.on = on
}

// step does something after which lost need not, and won must, hold.
func (b *blackout) step(do func() error, lost, won []string) {
	b.t.Helper()
	for _, f := range lost {
		delete(b.facts, f)
	}
	b.watch(true)
	err := do()
	b.watch(false)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range won {
		b.facts[f] = true
	}
}

// TestPowerLoss opens an engine, after "a reboot", on what the disk would have had at
// every moment of some operations: it starts, nothing of it is half done, and what had
// been acknowledged is there.
func TestPowerLoss(t *testing.T) {
	b := &blackout{t: t, facts: map[string]bool{"image busybox": true}}
	fault.Watch(b.at)
	defer fault.Watch(nil)
	te := newTestEngine(t)
	ctx := t.Context()
	dir, err := os.MkdirTemp(testRoot(), "")
	must(t, err)
	defer os.Remove(dir)
	b.state, b.dir = te.cfg.StateRoot, dir
	withVolume := request("sh", "-c", "echo treasure >/hold; echo aye; exit 6")
	withVolume.Volumes = map[string]struct{}{"/data": {}}
	var one string
	b.step(func() error { one = te.create("one", withVolume); return nil }, nil, []string{"container one"})
	b.step(func() error {
		err := te.ContainerStart(ctx, one)
		te.wait(one, container.WaitConditionNotRunning)
		te.awaitForgotten(one)
		return err
	}, nil, []string{"container one exited 6"})
	b.step(func() error { return te.ContainerRename(ctx, one, "two") },
		[]string{"container one", "container one exited 6"}, []string{"container two exited 6"})
	b.step(func() error {
		_, err := te.ContainerCommit(ctx, CommitOptions{Container: "two", Ref: "committed"})
		return err
	}, nil, []string{"image committed"})
	b.step(func() error {
		_, err := te.ImageImport(ctx, busyboxTar(t), ImageImportOptions{Ref: "imported"})
		return err
	}, nil, []string{"image imported"})
	b.step(func() error { return te.ImageTag(ctx, "imported", "tagged") }, nil, []string{"image tagged"})
	b.step(func() error {
		_, err := te.ImageRemove(ctx, "imported", ImageRemoveOptions{})
		return err
	}, []string{"image imported"}, nil)
	archive := te.savedFile(t, "tagged")
	b.step(func() error {
		_, err := te.ImageRemove(ctx, "tagged", ImageRemoveOptions{})
		return err
	}, []string{"image tagged"}, nil)
	b.step(func() error {
		_, err := te.ImageLoad(ctx, archive, ImageLoadOptions{})
		return err
	}, nil, []string{"image tagged"})
	b.step(func() error {
		_, err := te.ContainerUpdate(ctx, "two", &container.UpdateConfig{Resources: container.Resources{Memory: 32 << 20, MemorySwap: 32 << 20}})
		return err
	}, nil, nil)
	b.step(func() error { return te.ContainerRemove(ctx, "two", RemoveOptions{Volumes: true}) }, []string{"container two exited 6"}, nil)
	fault.Watch(nil)
	te.end()
	te.Engine = nil
	if len(b.copies) < 30 {
		t.Errorf("only %d copies", len(b.copies))
	}
	for i, c := range b.copies {
		if i%16 == 7 || os.Getenv(copiesVar) != "" {
			te.openCopy(t, c)
		}
		must(t, os.RemoveAll(c.dir))
	}
}

// savedFile is an image in a file, as a client passes it to be loaded.
func (te *testEngine) savedFile(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, te.ImageSave(t.Context(), ImageSaveOptions{Names: []string{name}}, f))
	_, err = f.Seek(0, io.SeekStart)
	must(t, err)
	return f
}

// openCopy starts an engine on a copy, as the first one after the host's next start.
func (te *testEngine) openCopy(t *testing.T, c copyOfState) {
	t.Helper()
	journal := filepath.Join(c.dir, "image/unsynced.json")
	if text, err := os.ReadFile(journal); err == nil {
		var j map[string]any
		must(t, json.Unmarshal(text, &j))
		j["boot"] = "another"
		text, err = json.Marshal(j)
		must(t, err)
		must(t, os.WriteFile(journal, text, 0o600))
	}
	te.move(t, c.dir)
	cfg := testConfig(te.dir)
	cfg.StateRoot, cfg.RunRoot, cfg.Logger = c.dir, c.dir+".run", quietLog()
	e, err := Open(context.Background(), cfg)
	if err != nil {
		t.Errorf("after %s: %v", c.point, err)
		return
	}
	missing := maps.Clone(c.facts)
	list, err := e.ContainerList(t.Context(), ListOptions{All: true})
	must(t, err)
	for _, summary := range list {
		rec := te.recordIn(e, summary.ID)
		delete(missing, "container "+rec.Name)
		delete(missing, fmt.Sprintf("container %s exited %d", rec.Name, rec.State.ExitCode))
		if rec.State.active() || rec.State.Status == stateCreating || rec.State.Status == stateRemoving {
			t.Errorf("after %s: container %s is %s", c.point, rec.Name, rec.State.Status)
		}
	}
	for f := range c.facts {
		if name, ok := strings.CutPrefix(f, "image "); ok {
			if _, err := e.images.Get(t.Context(), name); err == nil {
				delete(missing, f)
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("after %s: lost is %q", c.point, slices.Sorted(maps.Keys(missing)))
	}
	if report, err := e.Check(t.Context(), false); err != nil || len(report.Findings) > 0 {
		t.Errorf("after %s: check: %+v, %v", c.point, report, err)
	}
	client, err := e.keeper.connect(t.Context())
	must(t, err)
	pid := client.Info().Pid
	must(t, e.Close())
	terminateKeeper(t, pid)
	must(t, Purge(context.Background(), cfg))
}

// move makes the records in a copy speak of where it is.
func (te *testEngine) move(t *testing.T, dir string) {
	t.Helper()
	records, err := filepath.Glob(dir + "/containers/*/record.json")
	must(t, err)
	for _, path := range records {
		text, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, bytes.ReplaceAll(text, []byte(filepath.Join(te.dir, "state")), []byte(dir)), 0o600))
	}
}

func (te *testEngine) recordIn(e *Engine, id string) *record {
	te.t.Helper()
	c, err := e.containers.get(id)
	if err != nil {
		te.t.Fatal(err)
	}
	return c.snapshot()
}
