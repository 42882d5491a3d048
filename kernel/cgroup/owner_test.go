package cgroup

import (
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
)

func TestOwner(t *testing.T) {
	needRoot(t)
	g, err := Plan(testRoot + "/owner")
	if err != nil {
		t.Fatal(err)
	}
	g.SetOwner("a name")
	if err := g.Make(nil); err != nil {
		t.Fatal(err)
	}
	defer endGroup(t, g)
	if !g.Owned() {
		t.Error("root cannot name the owner")
	}
	for name, want := range map[string]bool{"a name": true, "a nam": false, "a name2": false, "": false} {
		if got, err := g.OwnedBy(name); err != nil || got != want {
			t.Errorf("owned by %q: %v, %v; want %v", name, got, err, want)
		}
	}
	again, err := RestoreOwned(g.State(), "a name")
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	// Somebody else's group at the same path.
	if err := g.Destroy(); err != nil {
		t.Fatal(err)
	}
	other, err := Create(testRoot+"/owner", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if g, err := RestoreOwned(other.State(), "a name"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a group without owner: %v, %v; want not found", g, err)
	}
}

// A Make that was interrupted has made some of the directories, and named none.
func TestRemoveUnnamed(t *testing.T) {
	needRoot(t)
	g, err := Plan(testRoot + "/unnamed")
	if err != nil {
		t.Fatal(err)
	}
	made := g.branches[:(len(g.branches)+1)/2]
	makeSome := func() {
		for i := range made {
			b := &made[i]
			if err := b.makeParents(path.Dir(b.dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(b.dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func() (n int) {
		for i := range g.branches {
			if _, err := os.Stat(g.branches[i].dir); err == nil {
				n++
			}
		}
		return n
	}
	makeSome()
	if err := RemoveUnnamed(g.State()); err != nil || left() > 0 {
		t.Errorf("%v; %d directories are left", err, left())
	}
	if err := RemoveUnnamed(g.State()); err != nil {
		t.Errorf("nothing to remove: %v", err)
	}
	// In use, or named.
	makeSome()
	below := made[0].dir + "/below"
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := RemoveUnnamed(g.State()); err != nil || left() != 1 {
		t.Errorf("%v; %d directories are left, want the one in use", err, left())
	}
	if err := errors.Join(os.Remove(below), RemoveUnnamed(g.State())); err != nil {
		t.Fatal(err)
	}
	g.SetOwner("somebody")
	if err := g.Make(nil); err != nil {
		t.Fatal(err)
	}
	defer endGroup(t, g)
	if err := RemoveUnnamed(g.State()); err != nil || left() != len(g.branches) {
		t.Errorf("%v; %d directories are left of a named group", err, left())
	}
}

func TestRestoreForgetsNothing(t *testing.T) {
	g := newGroup(t, nil)
	s := g.State()
	s.Dirs["nosuch"] = g.branches[0].dir
	if _, err := Restore(s); err == nil || !strings.Contains(err.Error(), `the hierarchy "nosuch" was not found`) {
		t.Errorf("%v", err)
	}
	s.Dirs["nosuch"] = "/nonexistent"
	again, err := Restore(s)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestSub(t *testing.T) {
	g := newGroup(t, nil)
	b := g.branch("pids")
	for _, dir := range []string{"a", "a/b", "c"} {
		if err := os.Mkdir(b.dir+"/"+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	prefix := ""
	if !b.v2 {
		prefix = "pids:"
	}
	for place, want := range map[string]string{"a": "/a", "/a/b": "/a/b", "./a//b/": "/a/b", "/": ""} {
		sub, err := g.Sub([]string{prefix + place})
		if err != nil {
			t.Errorf("%s: %v", place, err)
			continue
		}
		m := join(t, sub, "wait")
		m.expect("ready")
		text, err := os.ReadFile(path.Join("/proc", strconv.Itoa(m.pid), "cgroup"))
		if err != nil {
			t.Fatal(err)
		}
		hs, err := parseProcCgroup(string(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hs {
			want := g.Path() + want
			if !slices.Equal(h.controllers, b.controllers) && !b.v2 {
				want = g.Path()
			}
			if _, ours := g.State().Dirs[h.name()]; ours && h.own != want {
				t.Errorf("%s: hierarchy %q: process is in %s, want %s", place, h.name(), h.own, want)
			}
		}
		m.in.Close()
		m.wait()
		sub.Close()
	}
	wrong := []string{prefix + "..", prefix + "a/../../b", prefix, prefix + "a\x00"}
	if b.v2 {
		wrong = append(wrong, "")
	} else {
		wrong = append(wrong, "a", ":a", "nosuch:a", "pids,nosuch:a")
	}
	for _, place := range wrong {
		if sub, err := g.Sub([]string{place}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v, %v; want invalid", place, sub, err)
		}
	}
	if sub, err := g.Sub([]string{prefix + "nosuch"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a cgroup that is not there: %v, %v", sub, err)
	}
	if sub, err := g.Sub([]string{prefix + "a", prefix + "c"}); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "already") {
		t.Errorf("two places in one hierarchy: %v, %v", sub, err)
	}
}
