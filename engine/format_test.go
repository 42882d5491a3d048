package engine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// fixtureRoot is the state root that the fixtures' records speak of.
const fixtureRoot = "/var/lib/berth"

// extractState unpacks the state root that an engine of an earlier release has left.
func extractState(t *testing.T, name, root string) {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", name))
	must(t, err)
	defer file.Close()
	z, err := gzip.NewReader(file)
	must(t, err)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		path := filepath.Join(root, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			must(t, os.MkdirAll(path, h.FileInfo().Mode().Perm()))
		case tar.TypeReg:
			body, err := io.ReadAll(r)
			must(t, err)
			if strings.HasSuffix(path, ".json") {
				body = bytes.ReplaceAll(body, []byte(fixtureRoot), []byte(root))
			}
			must(t, os.WriteFile(path, body, h.FileInfo().Mode().Perm()))
		}
		for key, value := range h.PAXRecords {
			if attribute, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				must(t, unix.Setxattr(path, attribute, []byte(value), 0))
			}
		}
	}
}

// TestMigrate opens the state of the release before formats had numbers: two names of
// an image, a container that has exited, one never started, one of --rm, and what a
// killed engine had left of a write.
func TestMigrate(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp(testRoot(), "")
	must(t, err)
	te := &testEngine{t: t, dir: dir}
	t.Cleanup(te.end)
	cfg := testConfig(dir)
	must(t, os.MkdirAll(cfg.StateRoot, 0o711))
	extractState(t, "state-0.tar.gz", cfg.StateRoot)
	records, err := filepath.Glob(cfg.StateRoot + "/containers/*/record.json")
	if err != nil || len(records) != 3 {
		t.Fatal(records, err)
	}
	must(t, os.WriteFile(records[0]+newSuffix, []byte("{"), 0o600))
	te.open()
	if _, err := os.Stat(records[0] + newSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left of a write is there: %v", err)
	}
	if f, err := readFormat(cfg.StateRoot); err != nil || f != (stateFormat{currentFormat, "test"}) {
		t.Errorf("format %+v, %v", f, err)
	}
	if st := te.inspect("ran").State; st.Status != container.StateExited || st.ExitCode != 7 {
		t.Errorf("ran: %+v", st)
	}
	if out, _ := te.logs("ran"); out != "ahoy\n" {
		t.Errorf("its log: %q", out)
	}
	made := te.inspect("made")
	if made.State.Status != container.StateCreated || made.HostConfig.Memory != 64<<20 || made.Config.Image != "cargo:1.0" || len(made.Mounts) != 1 {
		t.Errorf("made: %+v", made)
	}
	if report, err := te.Check(t.Context(), false); err != nil || len(report.Findings) > 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
	if cargo, err := os.ReadFile(made.Mounts[0].Source + "/cargo"); err != nil || string(cargo) != "rum\n" {
		t.Errorf("its volume: %q, %v", cargo, err)
	}
	must(t, te.ContainerStart(t.Context(), "made"))
	if code := te.wait("made", container.WaitConditionNotRunning); code != 7 {
		t.Errorf("made exits %d", code)
	}
	for _, name := range []string{"cargo:1.0", "cargo:old"} {
		if _, err := te.images.Get(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}

// TestNewerStateIsRefused: an engine leaves alone what it does not understand.
func TestNewerStateIsRefused(t *testing.T) {
	dir := t.TempDir()
	for text, hint := range map[string]string{
		`{"Format":99,"Berth":"7.1"}`: "newer", `{"Format":"new"}`: `{"Format":1}`, ``: `{"Format":1}`,
	} {
		cfg := testConfig(dir)
		must(t, os.MkdirAll(cfg.StateRoot, 0o711))
		must(t, os.WriteFile(filepath.Join(cfg.StateRoot, formatFile), []byte(text), 0o600))
		_, err := Open(context.Background(), cfg)
		if err == nil || !strings.Contains(errdefs.Hint(err), hint) {
			t.Errorf("%s: %v, hint %q", text, err, errdefs.Hint(err))
		}
		if strings.Contains(text, "99") && (!errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "of Berth 7.1")) {
			t.Errorf("%s: %v", text, err)
		}
		if entries, _ := os.ReadDir(filepath.Join(cfg.StateRoot, "image")); len(entries) > 0 {
			t.Errorf("%s: the engine went to work: %v", text, entries)
		}
	}
}

// TestMigrationsAreWhole: there is one for every format before the current one.
func TestMigrationsAreWhole(t *testing.T) {
	if len(migrations) != currentFormat {
		t.Errorf("%d migrations lead to format %d", len(migrations), currentFormat)
	}
}
