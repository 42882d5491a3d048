package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
)

// TestFinishDeleteOfBrokenRecord has the record of a container whose hooks are still to
// run cut off: it stays, and the error says which it is and what to do.
func TestFinishDeleteOfBrokenRecord(t *testing.T) {
	s := Store{Root: t.TempDir()}
	dir := filepath.Join(s.Root, retiredDir, "c1", "1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(`{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := s.FinishDelete("c1")
	if found || err == nil || !strings.Contains(err.Error(), "container c1") {
		t.Errorf("found %t, %v", found, err)
	}
	if hint := errdefs.Hint(err); !strings.Contains(hint, dir) {
		t.Errorf("hint %q does not name %s", hint, dir)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}
