package image

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

// du is what the blobs and layers of a store take, as du(1) counts.
func du(t *testing.T, s *Store) (sum int64) {
	t.Helper()
	s.janitor.wait()
	seen := map[uint64]bool{}
	for _, dir := range []string{"content/blobs", "layers/snapshots", "trash"} {
		err := filepath.WalkDir(filepath.Join(s.root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st syscall.Stat_t
			if err := syscall.Lstat(path, &st); err != nil {
				return err
			}
			if !seen[st.Ino] {
				sum += st.Blocks * 512
			}
			seen[st.Ino] = true
			return nil
		})
		must(t, err)
	}
	return sum
}

// TestDiskUsage: what is said to be reclaimable is what a prune says it gave
// back, and what du then misses.
func TestDiskUsage(t *testing.T) {
	ctx := context.Background()
	var s *Store
	s = openTest(t, func(o *Options) {
		o.Users = func(id digest.Digest) (users []User) {
			for key, img := range s.Snapshots() {
				if img == id {
					users = append(users, User{ContainerID: key})
				}
			}
			return users
		}
	})
	body := strings.Repeat("content that is not nothing\n", 20_000)
	base := smallImage(t, s, "base", reg("base", body), hardlink("again", "base"))
	other := smallImage(t, s, "other", reg("other", body+body))
	must(t, s.Prepare(ctx, "c", base))
	must(t, os.WriteFile(mounted(t, s, "c")+"/app", []byte(body), 0o600))
	app, err := s.Commit(ctx, "c", base, CommitOptions{Ref: "app"})
	must(t, err)
	must(t, s.RemoveSnapshot(ctx, "c"))
	must(t, s.Prepare(ctx, "user", other))

	before := du(t, s)
	u, err := s.DiskUsage(ctx)
	must(t, err)
	const metadata = 16 << 10 // directories of a layer or of the blobs
	if gap := before - u.Total; gap < 0 || gap > 4*metadata {
		t.Errorf("it takes %d bytes, du says %d", u.Total, before)
	}
	if want := base.Size; u.Shared[base.ID] != want || u.Shared[app.ID] != want || u.Shared[other.ID] != 0 {
		t.Errorf("shared %v, want %d of base and app", u.Shared, want)
	}
	removed, reclaimed, err := s.Prune(ctx, PruneOptions{All: true})
	must(t, err)
	if reclaimed != u.Reclaimable || reclaimed < 3*int64(len(body)) {
		t.Errorf("%d bytes were to be reclaimed, %d were", u.Reclaimable, reclaimed)
	}
	if gap := before - du(t, s) - reclaimed; gap < 0 || gap > 3*metadata {
		t.Errorf("prune gave back %d bytes, du misses %d more", reclaimed, gap)
	}
	if len(removed) != 4 { // two names, two images
		t.Errorf("removed %+v", removed)
	}
	if u, err = s.DiskUsage(ctx); err != nil || u.Reclaimable != 0 {
		t.Errorf("still reclaimable: %d, %v", u.Reclaimable, err)
	}

	// Without its image a container still needs the layers, but not the blobs.
	_, err = s.Remove(ctx, "other", RemoveOptions{Force: true})
	must(t, err)
	if u, err = s.DiskUsage(ctx); err != nil || u.Reclaimable != 0 || u.Total != other.Size {
		t.Errorf("with a container only: %+v, %v, want %d", u, err, other.Size)
	}
	must(t, s.RemoveSnapshot(ctx, "user"))
	if u, err = s.DiskUsage(ctx); err != nil || u.Reclaimable != other.Size {
		t.Errorf("without it: %+v, %v", u, err)
	}
	if _, reclaimed, err := s.Prune(ctx, PruneOptions{}); err != nil || reclaimed != other.Size {
		t.Errorf("prune of a layer nobody has: %d, %v", reclaimed, err)
	}
	if got := left(t, s); len(got) > 0 {
		t.Errorf("left behind: %q", got)
	}
}

// commitOf commits parent with one more file.
func commitOf(t *testing.T, s *Store, parent *Image, ref string) *Image {
	t.Helper()
	ctx := context.Background()
	must(t, s.Prepare(ctx, "commit", parent))
	must(t, os.WriteFile(mounted(t, s, "commit")+"/"+parent.ID.Encoded()[:8], nil, 0o600))
	img, err := s.Commit(ctx, "commit", parent, CommitOptions{Ref: ref})
	must(t, err)
	must(t, s.RemoveSnapshot(ctx, "commit"))
	return img
}

// TestParents: what happens to images that others were committed from.
func TestParents(t *testing.T) {
	ctx := context.Background()
	for name, test := range map[string]struct {
		ref    string
		opts   RemoveOptions
		users  string // who has a container
		want   string // what is removed, or part of the error
		remain string
	}{
		"the last":                     {"c", RemoveOptions{}, "", "-c:latest -c -b", "a"},
		"the last, no prune":           {"c", RemoveOptions{NoPrune: true}, "", "-c:latest -c", "a b"},
		"the last, parent used":        {"c", RemoveOptions{}, "b", "-c:latest -c", "a b"},
		"parent by id":                 {"b", RemoveOptions{}, "", "(cannot be forced) - image has dependent child images", "a b c"},
		"parent by id, forced":         {"b", RemoveOptions{Force: true}, "", "(cannot be forced) - image has dependent child images", "a b c"},
		"name of a parent":             {"a", RemoveOptions{}, "", "-a:latest", "a b c"},
		"name of a parent, then child": {"a c", RemoveOptions{}, "", "-a:latest -c:latest -c -b -a", ""},
	} {
		t.Run(name, func(t *testing.T) {
			byID := map[digest.Digest]string{}
			s := openTest(t, func(o *Options) {
				o.Users = func(id digest.Digest) []User {
					if byID[id] == test.users {
						return []User{{ContainerID: "u"}}
					}
					return nil
				}
			})
			a := smallImage(t, s, "a")
			b := commitOf(t, s, a, "")
			c := commitOf(t, s, b, "c")
			if c.Parent != b.ID || b.Parent != a.ID || a.Parent != "" {
				t.Errorf("parents %q %q %q", a.Parent, b.Parent, c.Parent)
			}
			if len(test.users) == 0 {
				test.users = "nobody"
			}
			byID[a.ID], byID[b.ID], byID[c.ID] = "a", "b", "c"
			var got []string
			var err error
			for ref := range strings.FieldsSeq(test.ref) {
				if ref == "b" {
					ref = b.ID.String()
				}
				var removed []Removed
				removed, err = s.Remove(ctx, ref, test.opts)
				for _, r := range removed {
					if r.Untagged != "" {
						got = append(got, "-"+r.Untagged)
					} else {
						got = append(got, "-"+byID[r.Deleted])
					}
				}
			}
			if err != nil && !strings.Contains(err.Error(), test.want) || err == nil && strings.Join(got, " ") != test.want {
				t.Errorf("removed %q, %v, want %s", got, err, test.want)
			}
			list, err := s.List(ctx)
			must(t, err)
			var remain []string
			for _, img := range list {
				remain = append(remain, byID[img.ID])
			}
			slices.Sort(remain)
			if got := strings.Join(remain, " "); got != test.remain {
				t.Errorf("remain %q, want %q", got, test.remain)
			}
		})
	}
}

// TestPruneRules: what is dangling, what is kept, and parents after their
// children.
func TestPruneRules(t *testing.T) {
	ctx := context.Background()
	s := openTest(t)
	a := smallImage(t, s, "a")
	b := commitOf(t, s, a, "")
	c := commitOf(t, s, b, "c")
	lone := commitOf(t, s, a, "")
	prune := func(opts PruneOptions) (gone []digest.Digest) {
		t.Helper()
		removed, _, err := s.Prune(ctx, opts)
		must(t, err)
		for _, r := range removed {
			if r.Deleted != "" {
				gone = append(gone, r.Deleted)
			}
		}
		return gone
	}
	if got := prune(PruneOptions{Keep: func(img *Image) bool { return img.ID == lone.ID }}); len(got) != 0 {
		t.Errorf("what is to be kept went: %v", got)
	}
	if got := prune(PruneOptions{}); !slices.Equal(got, []digest.Digest{lone.ID}) {
		t.Errorf("dangling: %v, want %v", got, lone.ID)
	}
	if got := prune(PruneOptions{All: true, Keep: func(img *Image) bool { return img.ID == c.ID }}); len(got) != 0 {
		t.Errorf("parents of what is kept: %v", got)
	}
	if got := prune(PruneOptions{All: true}); !slices.Equal(got, []digest.Digest{c.ID, b.ID, a.ID}) {
		t.Errorf("all: %v, want %v", got, []digest.Digest{c.ID, b.ID, a.ID})
	}
	if got := left(t, s); len(got) > 0 {
		t.Errorf("left behind: %q", got)
	}
	_, err := s.Import(ctx, bytes.NewReader(tarOf(t, reg("x", "x"))), ImportOptions{})
	must(t, err)
}
