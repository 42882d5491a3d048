package image

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// TestJanitorStuck: what cannot be deleted is listed until it can, and new
// removals are not held up by it.
func TestJanitorStuck(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "trash"), 0o700); err != nil {
		t.Fatal(err)
	}
	j := newJanitor(root, nil, slog.New(slog.DiscardHandler))
	defer j.close()
	s := &Store{janitor: j}
	j.wait()
	j.postpone(map[string]error{"one": errors.New("in use"), "two": errors.New("in use")})
	first := s.Stuck()
	if len(first) != 2 || first[0].Cause != "in use" || filepath.Dir(first[0].Path) != filepath.Join(root, "trash") {
		t.Fatalf("stuck are %+v", first)
	}
	j.postpone(map[string]error{"two": errors.New("still in use")})
	if left := s.Stuck(); len(left) != 1 || left[0].Cause != "still in use" {
		t.Errorf("stuck are %+v", left)
	}
	// The next sweep finds neither.
	dir := filepath.Join(root, "removed")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is not there
		if err := s.Discard(dir); err != nil {
			t.Fatal(err)
		}
	}
	j.wait()
	if left := s.Stuck(); len(left) != 0 {
		t.Errorf("stuck are %+v", left)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was discarded: %v", err)
	}
}
