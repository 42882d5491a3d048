package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-containers/berth/errdefs"
)

// TestRemove is Docker's rules as a table: names the image has, who uses it,
// what is asked, what happens.
func TestRemove(t *testing.T) {
	const id = "ID"
	stopped, running := []User{{ContainerID: "stopped"}}, []User{{ContainerID: "running", Running: true}}
	for _, tt := range []struct {
		name   string
		tags   []string
		users  []User
		ref    string
		force  bool
		want   string // what is removed, or "conflict: part of the text"
		remain string // tags, or "none" (dangling), or "gone"
	}{
		{"only name", []string{"a:1"}, nil, "a:1", false, "-a:1 -ID", "gone"},
		{"one of two names", []string{"a:1", "a:2"}, nil, "a:1", false, "-a:1", "a:2"},
		{"one of two names, used", []string{"a:1", "a:2"}, running, "a:1", false, "-a:1", "a:2"},
		{"only name, stopped user", []string{"a:1"}, stopped, "a:1", false, "conflict: conflict: unable to remove repository reference \"a:1\" (must force) - container stopped is using its referenced image", "a:1"},
		{"only name, stopped user, force", []string{"a:1"}, stopped, "a:1", true, "-a:1 -ID", "gone"},
		{"only name, running user", []string{"a:1"}, running, "a:1", false, "conflict: (must force) - container running is using", "a:1"},
		{"only name, running user, force", []string{"a:1"}, running, "a:1", true, "-a:1", "none"},
		{"id, one name", []string{"a:1"}, nil, id, false, "-a:1 -ID", "gone"},
		{"id, no name", nil, nil, id, false, "-ID", "gone"},
		{"id, two names", []string{"a:1", "b:1"}, nil, id, false, "conflict: (must be forced) - image is referenced in multiple repositories", "a:1 b:1"},
		{"id, two names, force", []string{"a:1", "b:1"}, nil, id, true, "-a:1 -b:1 -ID", "gone"},
		{"id, stopped user", []string{"a:1"}, stopped, id, false, "conflict: (must be forced) - image is being used by stopped container stopped", "a:1"},
		{"id, stopped user, force", []string{"a:1"}, stopped, id, true, "-a:1 -ID", "gone"},
		{"id, running user, force", []string{"a:1"}, running, id, true, "conflict: (cannot be forced) - image is being used by running container running", "a:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := context.Background()
			s := openTest(t, func(o *Options) { o.Users = func(digest.Digest) []User { return tt.users } })
			img := smallImage(t, s, "")
			for _, tag := range tt.tags {
				if err := s.Tag(ctx, img.ID.String(), tag); err != nil {
					t.Fatal(err)
				}
			}
			ref := tt.ref
			if ref == id {
				ref = img.ID.Encoded()[:12]
			}
			removed, err := s.Remove(ctx, ref, RemoveOptions{Force: tt.force})
			var got []string
			for _, r := range removed {
				if r.Deleted != "" {
					got = append(got, "-"+id)
				} else {
					got = append(got, "-"+r.Untagged)
				}
			}
			if text, ok := strings.CutPrefix(tt.want, "conflict: "); ok {
				if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), text) || errdefs.Hint(err) == "" {
					t.Errorf("error %v", err)
				}
			} else if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("removed %q, %v; want %s", got, err, tt.want)
			}
			remain := "gone"
			if img, err := s.Get(ctx, img.ID.String()); err == nil {
				if remain = strings.Join(img.RepoTags, " "); remain == "" {
					remain = "none"
				}
			}
			if remain != tt.remain {
				t.Errorf("remains %s, want %s", remain, tt.remain)
			}
			if blobs := left(t, s); (len(blobs) == 0) != (remain == "gone") {
				t.Errorf("on disk: %q", blobs)
			}
		})
	}
}

// TestRemoveKeepsWhatContainersStandOn: the layers outlive the image.
func TestRemoveKeepsWhatContainersStandOn(t *testing.T) {
	ctx := context.Background()
	s := openTest(t)
	img := smallImage(t, s, "a")
	if err := s.Prepare(ctx, "c", img); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(ctx, "a", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, mounted(t, s, "c")+"/hello"); got != "hello a\n" {
		t.Errorf("file says %q", got)
	}
	if err := s.Prepare(ctx, "c", img); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("prepare twice: %v", err)
	}
	if err := s.RemoveSnapshot(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveSnapshot(ctx, "c"); err != nil {
		t.Errorf("remove a snapshot twice: %v", err)
	}
	if _, _, err := s.Prune(ctx, PruneOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.collect(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(ctx, "d", img); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("prepare from an image that is gone: %v", err)
	}
	if got := left(t, s); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}

func TestTagAndLookup(t *testing.T) {
	ctx := context.Background()
	s := openTest(t)
	a, b := smallImage(t, s, "first"), smallImage(t, s, "second:x")
	for _, tt := range []struct {
		ref  string
		want *Image
		err  error
	}{
		{"first", a, nil}, {"first:latest", a, nil}, {"docker.io/library/first", a, nil}, {"second", nil, errdefs.ErrNotFound}, {"second:x", b, nil},
		{a.ID.String(), a, nil}, {a.ID.Encoded(), a, nil}, {a.ID.Encoded()[:6], a, nil}, {"sha256:" + a.ID.Encoded()[:6], a, nil},
		{a.Target.Digest.String(), a, nil}, {"first@" + a.Target.Digest.String(), a, nil}, {"second@" + a.Target.Digest.String(), nil, errdefs.ErrNotFound},
		{"nosuch", nil, errdefs.ErrNotFound}, {"UPPER", nil, errdefs.ErrInvalid}, {"a:b:c", nil, errdefs.ErrInvalid}, {"", nil, errdefs.ErrInvalid},
		{"sha256:", nil, errdefs.ErrInvalid}, {strings.Repeat("0", 64), nil, errdefs.ErrNotFound},
	} {
		got, err := s.Get(ctx, tt.ref)
		if tt.err != nil && !errors.Is(err, tt.err) || tt.err == nil && (err != nil || got.ID != tt.want.ID) {
			t.Errorf("get %q: %v, %v", tt.ref, got, err)
		}
	}
	// Enough images that two begin alike; their common beginning is ambiguous.
	common := ""
	byDigit := map[string]string{}
	for i := 0; common == ""; i++ {
		id := smallImage(t, s, fmt.Sprintf("many:%d", i)).ID.Encoded()
		if byDigit[id[:1]] != "" {
			common = id[:1]
		}
		byDigit[id[:1]] = id
	}
	if _, err := s.Get(ctx, common); !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "ambiguous") {
		t.Errorf("get %q: %v", common, err)
	}

	if err := s.Tag(ctx, "first", "second:x"); err != nil { // moves
		t.Fatal(err)
	}
	if got, err := s.Get(ctx, "second:x"); err != nil || got.ID != a.ID || !slices.Equal(got.RepoTags, []string{"first:latest", "second:x"}) {
		t.Errorf("after moving the tag: %+v, %v", got, err)
	}
	if got, err := s.Get(ctx, b.ID.String()); err != nil || len(got.RepoTags) != 0 {
		t.Errorf("the tag's old image: %+v, %v", got, err)
	}
	for dst, want := range map[string]error{"x@" + a.Target.Digest.String(): errdefs.ErrInvalid, "Bad": errdefs.ErrInvalid, "sha256:abc": errdefs.ErrInvalid} {
		if err := s.Tag(ctx, "first", dst); !errors.Is(err, want) {
			t.Errorf("tag as %s: %v", dst, err)
		}
	}
	if err := s.Tag(ctx, "nosuch", "x"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("tag of nothing: %v", err)
	}
	removed, reclaimed, err := s.Prune(ctx, PruneOptions{})
	if err != nil || len(removed) != 1 || removed[0].Deleted != b.ID || reclaimed <= 0 {
		t.Errorf("prune removed %+v, %d bytes, %v", removed, reclaimed, err)
	}
	if removed, reclaimed, err := s.Prune(ctx, PruneOptions{}); err != nil || len(removed) != 0 || reclaimed != 0 {
		t.Errorf("prune again: %+v, %d, %v", removed, reclaimed, err)
	}
	if _, _, err := s.Prune(ctx, PruneOptions{All: true}); err != nil {
		t.Error(err)
	}
	if got := left(t, s); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}
