package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"golang.org/x/sys/unix"
)

// extractInto extracts an archive into a directory of its own, which it returns.
func extractInto(t *testing.T, layer []byte) (string, error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("owners and devices need root")
	}
	dir := t.TempDir()
	x, err := newExtractor(dir, &whiteouts{dir: dir})
	must(t, err)
	defer x.close()
	return dir, x.run(context.Background(), bytes.NewReader(layer), func(*tar.Header) (bool, error) { return true, nil })
}

// described lists a tree with all that a layer says of its files.
func described(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	first := map[uint64]string{}
	must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel := strings.TrimPrefix(path, root)
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		text := fmt.Sprintf("%s %o %d:%d %x", rel, st.Mode, st.Uid, st.Gid, st.Rdev)
		if !e.IsDir() { // those have their own test
			text += fmt.Sprintf(" %d", st.Mtim.Sec)
		}
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			must(t, err)
			text += " -> " + to
		case e.Type().IsRegular():
			text += " " + readFile(t, path)
		}
		if !e.IsDir() && st.Nlink > 1 {
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			text += " = " + first[st.Ino]
		}
		b := make([]byte, 100)
		if n, err := unix.Lgetxattr(path, "user.note", b); err == nil {
			text += " note " + string(b[:n])
		}
		all = append(all, text)
		return nil
	}))
	return all
}

// TestExtractAsOthersDo: any archive that containerd's extractor takes becomes
// the same files with ours. The names are few, so that entries meet each other,
// through links as well.
func TestExtractAsOthersDo(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		layer := tarOf(t, randomEntries(random)...)
		theirs := t.TempDir()
		if _, err := archive.Apply(context.Background(), theirs, bytes.NewReader(layer)); err != nil {
			_, _ = extractInto(t, layer) // only that it ends
			continue
		}
		ours, err := extractInto(t, layer)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got, want := described(t, ours), described(t, theirs); !slices.Equal(got, want) {
			t.Fatalf("seed %d:\n%s\nwant\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func randomEntries(random *rand.Rand) []file {
	name := func() string {
		var parts []string
		for range 1 + random.IntN(4) {
			parts = append(parts, string("abc."[random.IntN(4)]))
		}
		return strings.Join(parts, "/")
	}
	var files []file
	for i := range 3 + random.IntN(9) {
		var f file
		switch random.IntN(6) {
		case 0, 1:
			f = dir(name() + "/")
		case 2, 3:
			f = reg(name(), fmt.Sprint(i))
		case 4:
			f = symlink(name(), []string{name(), "/" + name(), "../" + name(), "../../.."}[random.IntN(4)])
		case 5:
			f = hardlink(name(), target(files))
		}
		f.hdr.Mode = int64(random.IntN(0o10000))
		f.hdr.Uid, f.hdr.Gid = random.IntN(2), random.IntN(2)*7
		f.hdr.ModTime = time.Unix(1e9, 0) // theirs may set a directory's to what replaced it
		if f.hdr.Typeflag == tar.TypeReg && random.IntN(3) == 0 {
			f.hdr.Format, f.hdr.PAXRecords = tar.FormatPAX, map[string]string{"SCHILY.xattr.user.note": fmt.Sprint(i)}
		}
		files = append(files, f)
	}
	return files
}

// target is a file of an archive, mostly one that is still there.
func target(files []file) string {
	for _, f := range slices.Backward(files) {
		if f.hdr.Typeflag == tar.TypeReg {
			return f.name
		}
	}
	return "nosuch"
}

// TestExtractCorners are cases that other extractors take otherwise, or not.
func TestExtractCorners(t *testing.T) {
	at := func(f file, seconds int64) file {
		f.hdr.ModTime = time.Unix(seconds, 0)
		return f
	}
	mode := func(f file, mode int64) file {
		f.hdr.Mode = mode
		return f
	}
	kind := func(f file, flag byte) file {
		f.hdr.Typeflag = flag
		return f
	}
	var crowd []file
	for i := range 3 * keptDirs {
		crowd = append(crowd, mode(dir(fmt.Sprintf("d%d/", i)), 0o700))
	}
	for i := range 3 * keptDirs {
		crowd = append(crowd, mode(reg(fmt.Sprintf("d%d/f", 3*keptDirs-1-i), "x"), 0o600))
	}
	for name, test := range map[string]struct {
		files []file
		want  []string
	}{
		"a dangling link is where its target is made": {
			[]file{symlink("lib", "usr/lib"), mode(reg("lib/f", "x"), 0o644)},
			[]string{"/lib 120777 -> usr/lib", "/usr 40755", "/usr/lib 40755", "/usr/lib/f 100644"},
		},
		"what is opened is not what replaced it": {
			[]file{dir("d/"), reg("d/old", "x"), symlink("l", "d"), reg("l/more", "x"), mode(reg("d", "x"), 0o600), mode(dir("d/"), 0o711), mode(reg("l/new", "x"), 0o600)},
			[]string{"/d 40711", "/d/new 100600", "/l 120777 -> d"},
		},
		"the link on the way is what is replaced": {
			[]file{symlink("b", "../.."), mode(dir("b/b/"), 0o711), mode(reg("b/b/f", "x"), 0o600)}, []string{"/b 40711", "/b/b 40755", "/b/b/f 100600"},
		},
		"the group of a directory is not for its files": {
			[]file{mode(dir("d/"), 0o2755), mode(reg("d/f", "x"), 0o644), mode(dir("d/e/"), 0o700)},
			[]string{"/d 42755", "/d/e 40700", "/d/f 100644"},
		},
		"the last of a directory's entries counts": {
			[]file{mode(dir("d/"), 0o700), mode(reg("d/f", "x"), 0), mode(dir("d/"), 0)},
			[]string{"/d 40000", "/d/f 100000"},
		},
		"special bits stay":       {[]file{mode(reg("f", "x"), 0o6755), mode(dir("t/"), 0o1777)}, []string{"/f 106755", "/t 41777"}},
		"contiguous files":        {[]file{mode(kind(reg("f", ""), tar.TypeCont), 0o600)}, []string{"/f 100600"}},
		"global headers say none": {[]file{{name: "", hdr: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}}}}, nil},
		"a directory that went has no times": {
			[]file{at(dir("d/"), 5), at(dir("d/e/"), 5), at(symlink("d", "/etc"), 6)}, []string{"/d 120777 -> /etc"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := modesOf(t, tarOf(t, test.files...)); !slices.Equal(got, test.want) {
				t.Errorf("%q\nwant %q", got, test.want)
			}
		})
	}
	t.Run("more directories than are held open", func(t *testing.T) {
		if got := modesOf(t, tarOf(t, crowd...)); len(got) != len(crowd) {
			t.Errorf("%d of %d files", len(got), len(crowd))
		}
	})
	t.Run("device number out of range", func(t *testing.T) {
		for _, number := range [][2]int64{{1 << 33, 0}, {1 << 12, 0}, {8, 1 << 20}} {
			_, err := extractInto(t, tarOf(t, file{name: "dev", hdr: tar.Header{Typeflag: tar.TypeChar, Devmajor: number[0], Devminor: number[1]}}))
			if err == nil || !strings.Contains(err.Error(), "dev: the device number is out of range") {
				t.Errorf("%d: error %v", number, err)
			}
		}
	})
	t.Run("a link leaves a file its capabilities", func(t *testing.T) {
		f := mode(reg("f", "x"), 0o755)
		f.hdr.Format, f.hdr.PAXRecords = tar.FormatPAX, map[string]string{"SCHILY.xattr.security.capability": capability}
		root, err := extractInto(t, tarOf(t, f, mode(hardlink("l", "f"), 0o755)))
		must(t, err)
		if n, err := unix.Lgetxattr(filepath.Join(root, "l"), "security.capability", make([]byte, 100)); err != nil || n != len(capability) {
			t.Errorf("%d bytes of capabilities, %v", n, err)
		}
	})
}

// modesOf extracts and lists names, modes and targets.
func modesOf(t *testing.T, layer []byte) []string {
	t.Helper()
	dir, err := extractInto(t, layer)
	must(t, err)
	var list []string
	for _, line := range described(t, dir) {
		f := strings.Fields(line)
		text := f[0] + " " + f[1]
		if i := slices.Index(f, "->"); i > 0 {
			text += " -> " + f[i+1]
		}
		list = append(list, text)
	}
	return list
}

// TestExtractedTimes: directories have theirs although files came after them.
func TestExtractedTimes(t *testing.T) {
	d, f := dir("d/"), reg("d/f", "x")
	d.hdr.ModTime, f.hdr.ModTime = time.Unix(1000, 0), time.Unix(2000, 5)
	f.hdr.AccessTime = time.Unix(3000, 0)
	f.hdr.Format = tar.FormatPAX
	l := symlink("d/l", "f")
	l.hdr.ModTime = time.Unix(-5, 0) // before there were times
	root, err := extractInto(t, tarOf(t, d, f, l))
	must(t, err)
	for name, want := range map[string][2]int64{"d": {1000e9, 1000e9}, "d/f": {3000e9, 2000e9 + 5}, "d/l": {0, 0}} {
		var st syscall.Stat_t
		must(t, syscall.Lstat(filepath.Join(root, name), &st))
		if got := [2]int64{st.Atim.Nano(), st.Mtim.Nano()}; got != want {
			t.Errorf("%s has %d, want %d", name, got, want)
		}
	}
}
