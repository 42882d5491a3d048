package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-containers/berth/errdefs"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if ref := os.Getenv("BERTH_TEST_PULL"); ref != "" {
		pullAndDie(os.Getenv("BERTH_TEST_ROOT"), ref, os.Getenv("BERTH_TEST_AT"))
	}
	os.Exit(m.Run())
}

// pullAndDie pulls ref and kills its own process at the given status.
func pullAndDie(root, ref, at string) {
	s, err := Open(context.Background(), Options{Root: root})
	if err == nil {
		_, err = s.Pull(context.Background(), ref, PullOptions{Progress: func(e ProgressEvent) {
			if e.Status == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}})
	}
	fmt.Fprintln(os.Stderr, "not killed:", err)
	os.Exit(1)
}

// TestKilled: a process killed at any point of a pull leaves nothing the next
// one does not clear away, and the pull can be repeated.
func TestKilled(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	f := newFakeRegistry(t)
	f.put(t, "v1", here(), bigLayer(t, "a", 4<<20), bigLayer(t, "b", 4<<20))
	for _, at := range []string{"Pulling from app", statusPulling, statusDownload, statusVerify, statusFetched, statusExtract, statusPulled} {
		t.Run(at, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "s")
			cmd := exec.Command(os.Args[0])
			status := at
			if strings.HasPrefix(at, "Pulling from") {
				status = "Pulling from app"
			}
			cmd.Env = append(os.Environ(), "BERTH_TEST_PULL="+f.host+"/app:v1", "BERTH_TEST_ROOT="+root, "BERTH_TEST_AT="+status)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%v\n%s", err, out)
			}
			s := openAt(t, root)
			if got := left(t, s); len(got) != 0 {
				t.Errorf("left behind: %q", got)
			}
			if _, err := s.Pull(context.Background(), f.host+"/app:v1", PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReopen(t *testing.T) {
	ctx := context.Background()
	root := filepath.Join(t.TempDir(), "s")
	s := openAt(t, root)
	img := smallImage(t, s, "a")
	if err := s.Prepare(ctx, "c", img); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, Options{Root: root}); !errors.Is(err, errdefs.ErrConflict) || errdefs.Hint(err) == "" {
		t.Errorf("second open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// What a process killed in Prepare, RemoveSnapshot and an update leaves.
	for _, path := range []string{"containers/.half.new/upper", "trash/x/y", "content/ingest/z"} {
		if err := os.MkdirAll(filepath.Join(root, path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, ".images.json.1.new"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, root)
	if got := s.Snapshots(); len(got) != 1 || got["c"] != img.ID {
		t.Errorf("snapshots %v", got)
	}
	again, err := s.Get(ctx, "a")
	if err != nil || again.ID != img.ID || again.Config.Config.Cmd[0] != "/hello" || again.Size != img.Size {
		t.Errorf("image %+v, %v", again, err)
	}
	if got := readFile(t, mounted(t, s, "c")+"/hello"); got != "hello a\n" {
		t.Errorf("file says %q", got)
	}
	for _, p := range left(t, s) {
		if strings.Contains(p, "new") || strings.HasPrefix(p, "trash") || strings.HasPrefix(p, "content/ingest") {
			t.Errorf("left behind: %s", p)
		}
	}
}

// TestPowerLoss: layers that were not synced before the machine went down are
// made again from their blobs, under the containers that stand on them.
func TestPowerLoss(t *testing.T) {
	ctx := context.Background()
	root := filepath.Join(t.TempDir(), "s")
	s := openAt(t, root)
	img := smallImage(t, s, "a")
	if err := s.Prepare(ctx, "c", img); err != nil {
		t.Fatal(err)
	}
	s.janitor.wait()
	if _, err := os.Stat(filepath.Join(root, "unsynced.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the layer is still listed as unsynced: %v", err)
	}
	lower := s.lowers[img.ChainID][0]
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lower, "hello"), nil, 0o600); err != nil { // what delayed allocation makes of it
		t.Fatal(err)
	}
	b, err := json.Marshal(journalState{Boot: "another", Layers: []digest.Digest{img.ChainID}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "unsynced.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, root)
	if got := readFile(t, mounted(t, s, "c")+"/hello"); got != "hello a\n" {
		t.Errorf("file says %q", got)
	}
	for _, p := range left(t, s) {
		if p == "unsynced.json" {
			t.Error("the list of unsynced layers is left")
		}
	}
}

// TestDamagedRecord: an image whose blobs are lost is dropped, the others stay.
func TestDamagedRecord(t *testing.T) {
	ctx := context.Background()
	root := filepath.Join(t.TempDir(), "s")
	s := openAt(t, root)
	a := smallImage(t, s, "lost")
	smallImage(t, s, "kept")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "content/blobs/sha256", a.ID.Encoded())); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, root)
	if _, err := s.Get(ctx, "lost"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("get lost: %v", err)
	}
	if _, err := s.Get(ctx, "kept"); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "images.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, Options{Root: root}); err == nil || !strings.Contains(err.Error(), "images.json") {
		t.Errorf("open with a broken list: %v", err)
	}
}

// TestWritesFail injects a failure into each write of the list of images: the
// list on disk and in memory stay what they were.
func TestWritesFail(t *testing.T) {
	ctx := context.Background()
	s := openTest(t)
	smallImage(t, s, "a")
	f := newFakeRegistry(t)
	f.put(t, "v1", here(), tarOf(t, reg("f", "x")))
	before := left(t, s)
	good := s.catalogue.path
	s.catalogue.path = filepath.Join(s.root, "nosuch", "images.json")
	for name, act := range map[string]func() error{
		"tag":    func() error { return s.Tag(ctx, "a", "b") },
		"remove": func() error { _, err := s.Remove(ctx, "a", RemoveOptions{}); return err },
		"prune":  func() error { _, _, err := s.Prune(ctx, PruneOptions{All: true}); return err },
		"pull":   func() error { _, err := s.Pull(ctx, f.host+"/x:v1", PullOptions{}); return err },
		"import": func() error {
			_, err := s.Import(ctx, bytes.NewReader(tarOf(t, reg("g", "x"))), ImportOptions{Ref: "b"})
			return err
		},
	} {
		if err := act(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		if got := left(t, s); strings.Join(got, " ") != strings.Join(before, " ") {
			t.Errorf("%s changed %q to %q", name, before, got)
		}
		if got := ids(t, s); len(got) != 1 || got["a:latest"] == "" {
			t.Errorf("%s left the names %v", name, got)
		}
	}
	s.catalogue.path = good
	if err := s.Tag(ctx, "a", "b"); err != nil {
		t.Error(err)
	}
}
