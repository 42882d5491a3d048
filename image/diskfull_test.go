package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// smallDisk is a tmpfs of the given size for the length of the test.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	path := t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", bytes)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Detached, because containerd's probe for fs-verity leaves a deleted
		// file open until the garbage collector finds it.
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
	return path
}

// TestDiskFull fills the disk at every stage: while a blob arrives, while a
// layer is unpacked, and in between.
func TestDiskFull(t *testing.T) {
	ctx := context.Background()
	const disk = 24 << 20
	f := newFakeRegistry(t)
	noise := func(name string, n int) []byte { return bigLayer(t, name, n) }
	f.put(t, "blob", here(), noise("a", 30<<20))
	f.put(t, "layer", here(), tarOf(t, reg("zeros", strings.Repeat("\x00", 30<<20)))) // unpacks to too much
	f.put(t, "second", here(), noise("b", 4<<20), noise("c", 30<<20))
	f.put(t, "fits", here(), noise("d", 4<<20))
	archive := save(t, map[string][]byte{"big": noise("e", 30<<20)})
	for name, act := range map[string]func(s *Store) error{
		"pull, blob":         func(s *Store) error { _, err := s.Pull(ctx, f.host+"/x:blob", PullOptions{}); return err },
		"pull, unpack":       func(s *Store) error { _, err := s.Pull(ctx, f.host+"/x:layer", PullOptions{}); return err },
		"pull, second layer": func(s *Store) error { _, err := s.Pull(ctx, f.host+"/x:second", PullOptions{}); return err },
		"load":               func(s *Store) error { _, err := s.Load(ctx, bytes.NewReader(archive), LoadOptions{}); return err },
		"import": func(s *Store) error {
			_, err := s.Import(ctx, bytes.NewReader(noise("f", 14<<20)), ImportOptions{}) // the blob fits, its files do not
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openAt(t, filepath.Join(smallDisk(t, disk), "s"))
			keep := smallImage(t, s, "keep")
			before := left(t, s)
			err := act(s)
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("error %v", err)
			}
			if msg := err.Error(); !strings.Contains(msg, "no space left on device") || strings.Contains(msg, "\n") {
				t.Errorf("error %q", msg)
			}
			if hint := errdefs.Hint(err); !strings.Contains(hint, s.root) {
				t.Errorf("hint %q", hint)
			}
			t.Logf("%v (%s)", err, errdefs.Hint(err))
			if got := left(t, s); strings.Join(got, " ") != strings.Join(before, " ") {
				t.Errorf("left behind: %q, before %q", got, before)
			}
			if _, err := s.Pull(ctx, f.host+"/x:fits", PullOptions{}); err != nil {
				t.Errorf("a pull that fits: %v", err)
			}
			if err := s.Prepare(ctx, "c", keep); err != nil {
				t.Error(err)
			}
		})
	}
}

// save is an archive of images of one layer each, made by a store of its own.
func save(t *testing.T, layers map[string][]byte) []byte {
	t.Helper()
	s := openTest(t)
	var names []string
	for name, layer := range layers {
		if _, err := s.Import(context.Background(), bytes.NewReader(layer), ImportOptions{Ref: name}); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	var b bytes.Buffer
	if err := s.Save(context.Background(), names, &b, SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
