package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// capability is a version 2 security.capability value: cap_net_raw+ep.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// pullLayers makes an image of the layers through a registry.
func pullLayers(t *testing.T, s *Store, layers ...[]byte) (*Image, error) {
	t.Helper()
	f := newFakeRegistry(t)
	f.put(t, "v1", here(), layers...)
	return s.Pull(context.Background(), f.host+"/layers:v1", PullOptions{})
}

// tree lists what is below a directory, links with their target.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root+"/.", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		if e.Type()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			rel += " -> " + to
		}
		all = append(all, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func TestLayersKeepWhatFilesAre(t *testing.T) {
	s := openTest(t)
	attr := func(f file, kv ...string) file {
		f.hdr.Format, f.hdr.PAXRecords = tar.FormatPAX, map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			f.hdr.PAXRecords["SCHILY.xattr."+kv[i]] = kv[i+1]
		}
		return f
	}
	owned := reg("owned", "x")
	owned.hdr.Uid, owned.hdr.Gid, owned.hdr.Mode = 1234, 70000, 0o4711
	device := file{name: "null", hdr: tar.Header{Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}}
	fifo := file{name: "fifo", hdr: tar.Header{Typeflag: tar.TypeFifo, Mode: 0o600}}
	img, err := pullLayers(t, s,
		tarOf(t, dir("gone/"), reg("gone/a", "a"), dir("opaque/"), reg("opaque/old", "o"), reg("file", "f"), dir("kept/"), reg("kept/old", "k"),
			owned, device, fifo, reg("orig", "linked"), hardlink("link", "orig"), symlink("sym", "../../etc/passwd"),
			attr(reg("ping", "p"), "security.capability", capability, "user.note", "hi", "trusted.overlay.redirect", "/x")),
		tarOf(t, reg(".wh.gone", ""), reg("opaque/.wh..wh..opq", ""), reg("opaque/new", "n"), reg(".wh.file", ""), reg("kept/new", "k")),
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(context.Background(), "c", img); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, s, "c")
	want := []string{"fifo", "kept", "kept/new", "kept/old", "link", "null", "opaque", "opaque/new", "orig", "owned", "ping", "sym -> ../../etc/passwd"}
	if got := tree(t, root); !slices.Equal(got, want) {
		t.Errorf("tree %q\nwant %q", got, want)
	}
	var st, link syscall.Stat_t
	if err := errors.Join(syscall.Lstat(root+"/owned", &st), syscall.Lstat(root+"/link", &link)); err != nil {
		t.Fatal(err)
	}
	if st.Uid != 1234 || st.Gid != 70000 || st.Mode&0o7777 != 0o4711 {
		t.Errorf("owned is %d:%d %o", st.Uid, st.Gid, st.Mode)
	}
	if link.Nlink != 2 {
		t.Errorf("the hard link has %d names", link.Nlink)
	}
	if err := syscall.Lstat(root+"/null", &st); err != nil || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("null is device %x, %v", st.Rdev, err)
	}
	for name, want := range map[string]string{"security.capability": capability, "user.note": "hi"} {
		b := make([]byte, 100)
		n, err := unix.Lgetxattr(root+"/ping", name, b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("%s is %q, %v", name, b[:max(n, 0)], err)
		}
	}
}

// TestHostileLayers: a layer that tries to leave its directory, by name or
// through links it made before, writes inside it or fails. The canaries beside
// and above it stay as they are.
func TestHostileLayers(t *testing.T) {
	for name, layers := range map[string][][]file{
		"dot dot name":          {{reg("../../../../canary", "hacked")}},
		"absolute name":         {{reg("/canary", "inside")}},
		"link to parent":        {{symlink("up", "../../../.."), reg("up/canary", "hacked")}},
		"absolute link":         {{symlink("abs", "CANARYDIR"), reg("abs/canary", "hacked")}},
		"link chain":            {{symlink("a", ".."), symlink("b", "a/../.."), reg("b/canary", "hacked")}},
		"hard link out":         {{hardlink("steal", "CANARYDIR/canary")}},
		"hard link dot dot":     {{hardlink("steal", "../../../../canary")}},
		"write through link":    {{symlink("canary", "CANARYDIR/canary"), reg("canary", "hacked")}},
		"hard link of link":     {{symlink("l", "CANARYDIR/canary"), hardlink("h", "l"), reg("h", "hacked")}},
		"chmod through link":    {{symlink("l", "CANARYDIR/canary"), {name: "l", hdr: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "CANARYDIR/canary", Mode: 0o4777}}}},
		"whiteout outside":      {{reg("../../../../.wh.canary", "")}},
		"whiteout of dot dot":   {{dir("d/"), reg("d/.wh...", "")}},
		"whiteout of dot":       {{dir("d/"), reg("d/.wh..", "")}},
		"opaque through link":   {{symlink("l", "CANARYDIR"), reg("l/.wh..wh..opq", "")}},
		"link from below":       {{symlink("l", "CANARYDIR")}, {reg("l/canary", "hacked")}},
		"directory over a link": {{symlink("l", "CANARYDIR")}, {dir("l/"), reg("l/canary", "inside")}},
	} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			canary := filepath.Join(outside, "canary")
			if err := os.WriteFile(canary, []byte("alive"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := openAt(t, filepath.Join(outside, "s"))
			var tars [][]byte
			for _, files := range layers {
				for i := range files {
					files[i].name = strings.ReplaceAll(files[i].name, "CANARYDIR", outside)
					files[i].hdr.Linkname = strings.ReplaceAll(files[i].hdr.Linkname, "CANARYDIR", outside)
				}
				tars = append(tars, tarOf(t, files...))
			}
			img, err := pullLayers(t, s, tars...)
			t.Logf("pull: %v", err)
			var st syscall.Stat_t
			if serr := syscall.Lstat(canary, &st); serr != nil || st.Nlink != 1 || st.Mode&0o7777 != 0o600 {
				t.Errorf("the canary has %d names and mode %o, %v", st.Nlink, st.Mode, serr)
			}
			if got := readFile(t, canary); got != "alive" {
				t.Errorf("the canary says %q", got)
			}
			if got := dirNames(t, outside); !slices.Equal(got, []string{"canary", "s"}) {
				t.Errorf("beside the canary: %q", got)
			}
			var op [1]byte
			if _, err := unix.Lgetxattr(outside, "trusted.overlay.opaque", op[:]); err == nil {
				t.Error("the directory outside was made opaque")
			}
			if err == nil {
				if _, err := s.Remove(context.Background(), img.ID.String(), RemoveOptions{Force: true}); err != nil {
					t.Error(err)
				}
			}
			if got := left(t, s); len(got) != 0 {
				t.Errorf("left behind: %q", got)
			}
		})
	}
}

func dirNames(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestCommit: what is committed is what the container saw.
func TestCommit(t *testing.T) {
	ctx := context.Background()
	s := openTest(t)
	base, err := pullLayers(t, s, tarOf(t, dir("d/"), reg("d/1", "1"), reg("d/2", "2"), reg("f", "old"), dir("e/"), reg("e/x", "x"), symlink("dangling", "/nowhere"), reg("mode", "m")),
		tarOf(t, dir("d/"), reg("d/3", "3")))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(ctx, "c", base); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, s, "c")
	for _, err := range []error{
		os.Remove(root + "/d/1"),
		os.WriteFile(root+"/f", []byte("new"), 0o640),
		os.RemoveAll(root + "/e"),
		os.Mkdir(root+"/e", 0o750), // opaque now
		os.WriteFile(root+"/e/y", []byte("y"), 0o600),
		os.Remove(root + "/dangling"),
		os.Chmod(root+"/mode", 0o4755),
		os.Chown(root+"/f", 12, 34),
		os.Link(root+"/f", root+"/f2"),
		unix.Mknod(root+"/dev", unix.S_IFCHR|0o600, int(unix.Mkdev(5, 1))),
		unix.Mkfifo(root+"/fifo", 0o600),
		unix.Setxattr(root+"/e/y", "security.capability", []byte(capability), 0),
		os.Symlink("/etc/passwd", root+"/sym"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	img, err := s.Commit(ctx, "c", base, CommitOptions{
		Ref: "snap:1", Author: "me", Message: "why", CreatedBy: "sh -c x", Changes: []string{"ENV A=1", "USER nobody"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if img.Config.Author != "me" || img.Config.Config.User != "nobody" || len(img.Layers) != 3 || base.Config.Config.User != "" {
		t.Errorf("config %+v", img.Config)
	}
	history, err := s.History(ctx, "snap:1")
	if err != nil || history[0].Comment != "why" || history[0].CreatedBy != "sh -c x" || history[0].ID != img.ID || history[0].Size == 0 {
		t.Errorf("history %+v, %v", history, err)
	}
	if err := s.Prepare(ctx, "copy", img); err != nil {
		t.Fatal(err)
	}
	copied := mounted(t, s, "copy")
	if got, want := tree(t, copied), tree(t, root); !slices.Equal(got, want) {
		t.Errorf("committed %q\nwas %q", got, want)
	}
	for _, name := range []string{"f", "f2", "mode", "e", "e/y", "dev", "fifo"} {
		var a, b syscall.Stat_t
		if err := errors.Join(syscall.Lstat(root+"/"+name, &a), syscall.Lstat(copied+"/"+name, &b)); err != nil {
			t.Fatal(err)
		}
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev || a.Mtim.Sec != b.Mtim.Sec || a.Size != b.Size && name != "e" {
			t.Errorf("%s: committed %+v, was %+v", name, b, a)
		}
	}
	var a, b syscall.Stat_t
	if err := errors.Join(syscall.Lstat(copied+"/f", &a), syscall.Lstat(copied+"/f2", &b)); err != nil || a.Ino != b.Ino {
		t.Errorf("hard links came apart, %v", err)
	}
	buf := make([]byte, 64)
	if n, err := unix.Lgetxattr(copied+"/e/y", "security.capability", buf); err != nil || string(buf[:n]) != capability {
		t.Errorf("capability %v", err)
	}

	// Nothing changed: no layer, but a new image all the same.
	if err := s.Prepare(ctx, "idle", base); err != nil {
		t.Fatal(err)
	}
	same, err := s.Commit(ctx, "idle", base, CommitOptions{Message: "nothing"})
	if err != nil || len(same.Layers) != 2 || same.ID == base.ID {
		t.Errorf("commit of nothing: %+v, %v", same, err)
	}
	if _, err := s.Commit(ctx, "nosuch", base, CommitOptions{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("commit of an unknown key: %v", err)
	}
}

// TestCommitIsPortable: the layer of a commit says what was deleted in the way
// of the image specification, not of overlayfs.
func TestCommitIsPortable(t *testing.T) {
	ctx := context.Background()
	s := openTest(t)
	base := smallImage(t, s, "base", reg("a", "a"), symlink("l", "/nowhere"), dir("d/"), reg("d/x", "x"))
	if err := s.Prepare(ctx, "c", base); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, s, "c")
	if err := errors.Join(os.Remove(root+"/a"), os.Remove(root+"/l"), os.RemoveAll(root+"/d"), os.Mkdir(root+"/d", 0o755), os.WriteFile(root+"/d/y", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	img, err := s.Commit(ctx, "c", base, CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	layer, err := os.ReadFile(filepath.Join(s.root, "content/blobs/sha256", img.Layers[1].Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		names = append(names, fmt.Sprintf("%c%s", h.Typeflag, h.Name))
	}
	slices.Sort(names)
	if want := []string{"0.wh.a", "0.wh.l", "0d/.wh..wh..opq", "0d/y", "5d/"}; !slices.Equal(names, want) {
		t.Errorf("layer holds %q, want %q", names, want)
	}
}

// TestExportStaysInside: a link planted in the tree does not lead the export
// out of it, and the tar is the tree.
func TestExportStaysInside(t *testing.T) {
	s := openTest(t)
	img := smallImage(t, s, "x", dir("etc/"), reg("etc/passwd", "inside"), symlink("abs", "/etc/passwd"), symlink("dir", "/etc"))
	f, err := s.MountImage(context.Background(), img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if err := ExportRootfs(context.Background(), f, &b); err != nil {
		t.Fatal(err)
	}
	again, err := s.Import(context.Background(), &b, ImportOptions{Ref: "again"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(context.Background(), "again", again); err != nil {
		t.Fatal(err)
	}
	got, want := tree(t, mounted(t, s, "again")), []string{"abs -> /etc/passwd", "dir -> /etc", "etc", "etc/passwd"}
	if !slices.Equal(got, want) {
		t.Errorf("exported %q, want %q", got, want)
	}
	if err := os.WriteFile(procPath(f)+"/no", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing into an image's mount: %v", err)
	}
}

func TestLayerContentIsChecked(t *testing.T) {
	s := openTest(t)
	f := newFakeRegistry(t)
	layer := tarOf(t, reg("f", "x"))
	f.put(t, "v1", here(), layer)
	// A manifest whose config names another diff ID than the layer has.
	other := f.put(t, "other", here(), tarOf(t, reg("f", "y")))
	var m, o map[string]any
	f.mu.Lock()
	err := errors.Join(json.Unmarshal(f.manifests["v1"].body, &m), json.Unmarshal(f.manifests[other.Digest.String()].body, &o))
	f.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	m["config"] = o["config"]
	f.manifest("v1", other.MediaType, marshal(t, m), here())
	_, err = s.Pull(context.Background(), f.host+"/x:v1", PullOptions{})
	if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "the config says") {
		t.Errorf("error %v", err)
	}
	if got := left(t, s); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}
