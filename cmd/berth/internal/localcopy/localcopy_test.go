package localcopy

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPlace: the docker command's table of what a copy becomes.
func TestPlace(t *testing.T) {
	file, dir, content := Info{Path: "/s/f", Exists: true}, Info{Path: "/s/d", Exists: true, IsDir: true}, Info{Path: "/s/d/.", Exists: true, IsDir: true}
	toDir, toFile := Info{Path: "/t/x", Exists: true, IsDir: true}, Info{Path: "/t/x", Exists: true}
	none, noneDir := Info{Path: "/t/x"}, Info{Path: "/t/x/"}
	for name, test := range map[string]struct {
		src, dst     Info
		dir, in, out string
	}{
		"file to directory":             {file, toDir, "/t/x", "f", "f"},
		"file to file":                  {file, toFile, "/t", "f", "x"},
		"file to nothing":               {file, none, "/t", "f", "x"},
		"file to no directory":          {file, noneDir, "", "", "no such directory"},
		"directory to directory":        {dir, toDir, "/t/x", "d/a", "d/a"},
		"directory to file":             {dir, toFile, "", "", "cannot copy directory"},
		"directory to nothing":          {dir, none, "/t", "d/a", "x/a"},
		"directory to no directory":     {dir, noneDir, "/t", "d/", "x/"},
		"content to directory":          {content, toDir, "/t/x", "./a", "./a"},
		"content to nothing":            {content, none, "/t", "./a.b", "x/a.b"},
		"another name of the same":      {dir, none, "/t", "dd/a", "dd/a"},
		"renamed file to file":          {Info{Path: "/s/f", Rebase: "g"}, toFile, "/t", "g", "x"},
		"everything to what is nothing": {Info{Path: "/", IsDir: true}, none, "/t", "/bin/sh", "x/bin/sh"},
	} {
		where, rename, err := Place(test.src, test.dst)
		if err != nil {
			if err.Error() != test.out {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		got := test.in
		if rename != nil {
			got = rename(got)
		}
		if where != test.dir || got != test.out {
			t.Errorf("%s: %s in %s, want %s in %s", name, got, where, test.out, test.dir)
		}
	}
}

func TestPathEnds(t *testing.T) {
	for path, want := range map[string]string{"/a": "/a", "/a/": "/a/", "/a/.": "/a/.", "/": "/", "/a/b/../.": "/a/.", "/.": "/"} {
		if got, err := Absolute(path); err != nil || got != want {
			t.Errorf("%s is %s, %v", path, got, err)
		}
	}
	for path, want := range map[string][2]string{"/a/b": {"/a", "b"}, "/a/b/": {"/a", "b"}, "/a/b/.": {"/a/b", "."}, "/": {"/", "/"}} {
		if dir, name := Split(path); dir != want[0] || name != want[1] {
			t.Errorf("%s splits into %s and %s", path, dir, name)
		}
	}
}

// TestPackAndUnpack: files come out as they went in.
func TestPackAndUnpack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	when := time.Unix(1e9, 0)
	if err := os.MkdirAll(filepath.Join(from, "d", "e"), 0o750); err != nil {
		t.Fatal(err)
	}
	f := filepath.Join(from, "d", "e", "f")
	if err := os.WriteFile(f, []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Symlink("/nowhere", filepath.Join(from, "d", "l")), os.Link(f, filepath.Join(from, "d", "h")),
		os.Chtimes(f, when, when), os.Chtimes(filepath.Join(from, "d", "e"), when, when)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	src, err := Source(filepath.Join(from, "d"), false)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := Destination(filepath.Join(to, "new"))
	if err != nil {
		t.Fatal(err)
	}
	dir, rename, err := Place(src, dst)
	if err != nil {
		t.Fatal(err)
	}
	archive := Renamed(Pack(src), rename)
	defer archive.Close()
	if err := Unpack(archive, dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(to, "new", "e", "f"))
	if err != nil || info.Mode() != 0o640 || !info.ModTime().Equal(when) {
		t.Errorf("file %v, %v", info, err)
	}
	if other, err := os.Stat(filepath.Join(to, "new", "h")); err != nil || !os.SameFile(info, other) {
		t.Errorf("the hard link is another file: %v", err)
	}
	if target, err := os.Readlink(filepath.Join(to, "new", "l")); err != nil || target != "/nowhere" {
		t.Errorf("link to %q, %v", target, err)
	}
	if e, err := os.Stat(filepath.Join(to, "new", "e")); err != nil || !e.ModTime().Equal(when) || e.Mode().Perm() != 0o750 {
		t.Errorf("directory %v, %v", e, err)
	}
}

// TestUnpackStaysBelow: a hostile archive writes nothing beside the directory.
func TestUnpackStaysBelow(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"dots":         {{Name: "../../out", Typeflag: tar.TypeReg}},
		"link":         {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "l/out", Typeflag: tar.TypeReg}},
		"absolute":     {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "OUTSIDE"}, {Name: "l/out", Typeflag: tar.TypeReg}},
		"hard link":    {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../secret"}},
		"over a link":  {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../secret"}, {Name: "l", Typeflag: tar.TypeReg}},
		"chmod a link": {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "l", Typeflag: tar.TypeDir, Mode: 0o777}},
	} {
		top := t.TempDir()
		dir, secret := filepath.Join(top, "dir"), filepath.Join(top, "secret")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(secret, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range entries {
			h.Linkname = strings.Replace(h.Linkname, "OUTSIDE", top, 1)
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_ = Unpack(&b, dir) // refused, or harmless
		list, err := os.ReadDir(top)
		text, rerr := os.ReadFile(secret)
		if err != nil || rerr != nil || len(list) != 2 || string(text) != "mine" {
			t.Errorf("%s: beside it %v, %q", name, list, text)
		}
		if info, err := os.Stat(secret); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}
