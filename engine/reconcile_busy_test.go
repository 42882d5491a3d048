package engine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenWithBusyLeftover: what a crash left of a removal has a mount of
// somebody's in it. The next engine opens, the directory goes, and what was
// mounted stays whole.
func TestOpenWithBusyLeftover(t *testing.T) {
	te := newTestEngine(t)
	precious := filepath.Join(te.dir, "precious")
	doomed := filepath.Join(te.containersDir(), newID()+doomedSuffix)
	mkdir(t, precious)
	mkdir(t, filepath.Join(doomed, "mounted"))
	if err := os.WriteFile(filepath.Join(precious, "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(precious, filepath.Join(doomed, "mounted"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := te.Close(); err != nil {
		t.Fatal(err)
	}
	te.open()
	if _, err := os.Stat(doomed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover: %v", err)
	}
	if _, err := os.Stat(filepath.Join(precious, "data")); err != nil {
		t.Errorf("what was mounted: %v", err)
	}
	if err := os.RemoveAll(precious); err != nil {
		t.Error(err)
	}
}
