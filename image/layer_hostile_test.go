package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// TestLayersThatAreTooMuch: what exceeds a limit, or claims to, is refused
// before it is written, and nothing of it stays.
func TestLayersThatAreTooMuch(t *testing.T) {
	zeros := func(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }
	bomb := func(compress func(io.Writer) io.WriteCloser) []byte {
		var b bytes.Buffer
		c := compress(&b)
		w := tar.NewWriter(c)
		must(t, w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: 64 << 20, Mode: 0o600}))
		_, err := io.Copy(w, zeros(64<<20))
		must(t, errors.Join(err, w.Close(), c.Close()))
		return b.Bytes()
	}
	gz := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	zst := func(w io.Writer) io.WriteCloser {
		e, err := zstd.NewWriter(w)
		must(t, err)
		return e
	}
	many := make([]file, 1001)
	for i := range many {
		many[i] = reg(fmt.Sprintf("f%d", i), "")
	}
	var trailing bytes.Buffer
	trailing.Write(tarOf(t, reg("f", "x")))
	_, err := io.Copy(&trailing, zeros(64<<20))
	must(t, err)
	for name, test := range map[string]struct {
		layer []byte
		want  string
	}{
		"gzip bomb":         {bomb(gz), "more than the 32MiB"},
		"zstd bomb":         {bomb(zst), "more than the 32MiB"},
		"sparse tebibyte":   {sparseTar(t, "hole", 1<<40), `"hole": it unpacks to more than the 32MiB`},
		"sparse exbibyte":   {sparseTar(t, "hole", 1<<62), `"hole": it unpacks to more than the 32MiB`},
		"after the archive": {gzipped(t, trailing.Bytes()), "more than the 32MiB"},
		"many files":        {tarOf(t, many...), "more than the 1000 files"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, func(o *Options) { o.MaxLayerSize, o.MaxLayerFiles = 32<<20, 1000 })
			keep := smallImage(t, s, "keep")
			before := left(t, s)
			_, err := s.Import(context.Background(), bytes.NewReader(test.layer), ImportOptions{Ref: "bomb"})
			if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), test.want) || !strings.Contains(errdefs.Hint(err), "berthd.toml") {
				t.Errorf("import: %v (%s)", err, errdefs.Hint(err))
			}
			plain, err := decompress(bytes.NewReader(test.layer)) // the registry compresses
			must(t, err)
			layer, err := io.ReadAll(plain)
			must(t, err)
			_, err = pullLayers(t, s, layer)
			if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), test.want) || !strings.Contains(errdefs.Hint(err), "berthd.toml") {
				t.Errorf("pull: %v (%s)", err, errdefs.Hint(err))
			}
			if got := left(t, s); !slices.Equal(got, before) {
				t.Errorf("left behind: %q, before %q", got, before)
			}
			must(t, s.Prepare(context.Background(), "c", keep))
		})
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// sparseTar is a tar of one file that is a hole of the given size, in the way
// of GNU tar's format 1.0: the map of data is in the file's first block.
func sparseTar(t *testing.T, name string, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var extended bytes.Buffer
	for _, kv := range [][2]string{{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.name", name}, {"GNU.sparse.realsize", fmt.Sprint(size)}} {
		record := fmt.Sprintf(" %s=%s\n", kv[0], kv[1])
		n := len(record) + 2
		if n >= 100 {
			n++
		}
		fmt.Fprintf(&extended, "%d%s", n, record)
	}
	// The writer of archive/tar refuses to write such records itself.
	header := func(name string, flag byte, body []byte) {
		block := make([]byte, 512)
		copy(block, name)
		copy(block[100:], "0000644\x000000000\x000000000\x00")
		copy(block[124:], fmt.Sprintf("%011o\x00%011o\x00        ", len(body), 0))
		block[156] = flag
		copy(block[257:], "ustar\x0000")
		sum := 0
		for _, c := range block {
			sum += int(c)
		}
		copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(block)
		b.Write(body)
		b.Write(make([]byte, (512-len(body)%512)%512))
	}
	header("PaxHeaders/"+name, 'x', extended.Bytes())
	header("GNUSparseFile/"+name, '0', append([]byte(fmt.Sprintf("1\n%d\n0\n", size)), make([]byte, 512-len(fmt.Sprintf("1\n%d\n0\n", size)))...))
	must(t, w.Close())
	if hdr, err := tar.NewReader(bytes.NewReader(b.Bytes())).Next(); err != nil || hdr.Size != size || hdr.Name != name {
		t.Fatalf("the sparse archive reads as %+v, %v", hdr, err)
	}
	return b.Bytes()
}

// TestManyFiles: a layer of 100,000 files, a few of them with long names.
func TestManyFiles(t *testing.T) {
	s := openTest(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	long := strings.Repeat("n", 255)
	for i := range 100_000 {
		name := fmt.Sprintf("d%d/f%d", i/1000, i)
		if i%10_000 == 0 {
			name = strings.Repeat(long+"/", 8) + fmt.Sprint(i)
		}
		must(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Format: tar.FormatPAX}))
	}
	must(t, w.Close())
	img, err := s.Import(context.Background(), &b, ImportOptions{})
	must(t, err)
	must(t, s.Prepare(context.Background(), "c", img))
	root := mounted(t, s, "c")
	for i := range 100 {
		n, want := len(dirNames(t, fmt.Sprintf("%s/d%d", root, i))), 1000
		if i%10 == 0 {
			want--
		}
		if n != want {
			t.Errorf("d%d has %d files, want %d", i, n, want)
		}
	}
	if n := len(dirNames(t, root+"/"+strings.Repeat(long+"/", 8))); n != 10 {
		t.Errorf("%d files with long names", n)
	}
	_, err = s.Remove(context.Background(), img.ID.String(), RemoveOptions{})
	must(t, errors.Join(err, s.RemoveSnapshot(context.Background(), "c")))
}

// TestBrokenLayers: what is no whole tar is refused as the layer's fault.
func TestBrokenLayers(t *testing.T) {
	whole := tarOf(t, dir("d/"), reg("d/f", strings.Repeat("x", 3000)), reg("g", "y"))
	negative := bytes.Clone(whole)
	copy(negative[512+124:], "-0000000010\x00")
	huge := bytes.Clone(whole)
	copy(huge[512+124:], "\x80\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff") // base 256
	badSum := bytes.Clone(whole)
	badSum[512+148] ^= 1
	for name, layer := range map[string][]byte{
		"cut in a file":      whole[:2000],
		"cut in a header":    whole[:700],
		"cut gzip":           gzipped(t, whole)[:60],
		"negative size":      reSum(negative, 512),
		"huge size":          reSum(huge, 512),
		"bad checksum":       badSum,
		"no tar":             bytes.Repeat([]byte("not a tar "), 200),
		"long component":     tarOf(t, reg(strings.Repeat("n", 256), "x")),
		"long path":          tarOf(t, reg(strings.Repeat("long/", 900)+"f", "x")),
		"file as directory":  tarOf(t, reg("f", "x"), reg("f/g", "x")),
		"unknown kind":       reSum(func() []byte { b := bytes.Clone(whole); b[512+156] = 'Z'; return b }(), 512),
		"link to nothing":    tarOf(t, hardlink("a", "nosuch")),
		"link to directory":  tarOf(t, dir("d/"), hardlink("a", "d")),
		"link to itself":     tarOf(t, hardlink("a", "a")),
		"link loop in path":  tarOf(t, symlink("a", "b"), symlink("b", "a"), reg("a/f", "x")),
		"whiteout of itself": tarOf(t, reg(".wh.", "")),
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t)
			keep := smallImage(t, s, "keep")
			before := left(t, s)
			_, err := pullLayers(t, s, layer)
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Fatalf("pull: %v", err)
			}
			if msg := err.Error(); !strings.Contains(msg, "unpack layer sha256:") || strings.Contains(msg, "\n") || len(msg) > 800 || strings.Contains(msg, s.root) {
				t.Errorf("error %q", msg)
			}
			if got := left(t, s); !slices.Equal(got, before) {
				t.Errorf("left behind: %q, before %q", got, before)
			}
			must(t, s.Prepare(context.Background(), "c", keep))
		})
	}
}

// reSum corrects the checksum of the tar header at offset.
func reSum(b []byte, offset int) []byte {
	block := b[offset : offset+512]
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block {
		sum += int(c)
	}
	copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// TestWhiteouts: marks speak of the layers below, in whatever order they come.
func TestWhiteouts(t *testing.T) {
	base := tarOf(t, dir("d/"), reg("d/old", "o"), reg("f", "f"), dir("e/"), reg("e/old", "o"), symlink("l", "/nowhere"))
	for name, test := range map[string]struct {
		layer []byte
		want  []string
	}{
		"of nothing":             {tarOf(t, reg(".wh.nosuch", ""), reg("new/.wh.nosuch", ""), reg("x/.wh..wh..opq", "")), []string{"d", "d/old", "e", "e/old", "f", "l -> /nowhere", "new", "x"}},
		"twice":                  {tarOf(t, reg(".wh.f", ""), reg(".wh.f", "")), []string{"d", "d/old", "e", "e/old", "l -> /nowhere"}},
		"of a dangling link":     {tarOf(t, reg(".wh.l", "")), []string{"d", "d/old", "e", "e/old", "f"}},
		"then directory":         {tarOf(t, reg(".wh.d", ""), dir("d/"), reg("d/new", "n")), []string{"d", "d/new", "e", "e/old", "f", "l -> /nowhere"}},
		"after directory":        {tarOf(t, dir("d/"), reg("d/new", "n"), reg(".wh.d", "")), []string{"d", "d/new", "e", "e/old", "f", "l -> /nowhere"}},
		"then file":              {tarOf(t, reg(".wh.f", ""), reg("f", "n")), []string{"d", "d/old", "e", "e/old", "f", "l -> /nowhere"}},
		"after file":             {tarOf(t, reg("f", "n"), reg(".wh.f", "")), []string{"d", "d/old", "e", "e/old", "f", "l -> /nowhere"}},
		"of a file for a dir":    {tarOf(t, reg(".wh.f", ""), reg("f/new", "n")), []string{"d", "d/old", "e", "e/old", "f", "f/new", "l -> /nowhere"}},
		"opaque, late":           {tarOf(t, dir("d/"), reg("d/new", "n"), reg("d/.wh..wh..opq", "")), []string{"d", "d/new", "e", "e/old", "f", "l -> /nowhere"}},
		"opaque root":            {tarOf(t, reg(".wh..wh..opq", ""), dir("d/"), reg("d/new", "n"), reg("g", "g")), []string{"d", "d/new", "g"}},
		"opaque root, late":      {tarOf(t, reg("d/new", "n"), reg("g", "g"), reg(".wh..wh..opq", "")), []string{"d", "d/new", "g"}},
		"of aufs itself":         {tarOf(t, dir(".wh..wh.plnk/"), reg(".wh..wh.plnk/12.34", "x"), reg(".wh..wh.aufs", "")), []string{"d", "d/old", "e", "e/old", "f", "l -> /nowhere"}},
		"link in the place":      {tarOf(t, reg("d/.wh.old", ""), reg(".wh.e", ""), symlink("e", "/etc")), []string{"d", "e -> /etc", "f", "l -> /nowhere"}},
		"in an opaque directory": {tarOf(t, reg("d/.wh..wh..opq", ""), reg("d/.wh.old", "")), []string{"d", "e", "e/old", "f", "l -> /nowhere"}},
		"below a replaced place": {tarOf(t, reg("d/.wh.old", ""), symlink("d", "/etc")), []string{"d -> /etc", "e", "e/old", "f", "l -> /nowhere"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t)
			img, err := pullLayers(t, s, base, test.layer)
			must(t, err)
			must(t, s.Prepare(context.Background(), "c", img))
			if got := tree(t, mounted(t, s, "c")); !slices.Equal(got, test.want) {
				t.Errorf("tree %q\nwant %q", got, test.want)
			}
		})
	}
}

// TestWhiteoutKeepsTimes: what is hidden in a directory does not change its times.
func TestWhiteoutKeepsTimes(t *testing.T) {
	s := openTest(t)
	d := dir("d/")
	d.hdr.ModTime = time.Unix(1000, 0)
	img, err := pullLayers(t, s, tarOf(t, dir("d/"), reg("d/old", "o")), tarOf(t, d, reg("d/.wh.old", "")))
	must(t, err)
	dirs, err := s.lowerDirs(context.Background(), img.ChainID)
	must(t, err)
	var st syscall.Stat_t
	must(t, syscall.Lstat(filepath.Join(dirs[0], "d"), &st))
	if got := st.Mtim.Nano(); got != 1000e9 {
		t.Errorf("the directory has %d", got)
	}
}

// TestSmuggledAttributes: a layer brings no attribute that is the host's.
func TestSmuggledAttributes(t *testing.T) {
	s := openTest(t)
	hdr := func(f file) file {
		f.hdr.Format = tar.FormatPAX
		f.hdr.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.mine": "yes"}
		for _, name := range []string{
			"trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy", "trusted.overlay.whiteout", "trusted.overlay.origin",
			"user.overlay.opaque", snapshotAttribute, "trusted.other", "security.selinux", "security.SMACK64", "security.ima", "security.evm",
		} {
			f.hdr.PAXRecords["SCHILY.xattr."+name] = "y"
		}
		return f
	}
	d := dir("d/")
	d = hdr(d)
	delete(d.hdr.PAXRecords, "SCHILY.xattr.security.capability")
	suid := hdr(reg("d/f", "x"))
	suid.hdr.Mode = 0o6755
	img, err := pullLayers(t, s, tarOf(t, dir("d/"), reg("d/below", "b")), tarOf(t, d, suid))
	must(t, err)
	dirs, err := s.lowerDirs(context.Background(), img.ChainID)
	must(t, err)
	for path, want := range map[string][]string{"d": {"user.mine"}, "d/f": {"security.capability", "user.mine"}} {
		b := make([]byte, 4096)
		n, err := unix.Llistxattr(filepath.Join(dirs[0], path), b)
		must(t, err)
		names := strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00")
		names = slices.DeleteFunc(names, func(n string) bool { return n == "security.selinux" && selinux() })
		slices.Sort(names)
		if !slices.Equal(names, want) {
			t.Errorf("%s has %q, want %q", path, names, want)
		}
	}
	var st syscall.Stat_t
	must(t, syscall.Lstat(filepath.Join(dirs[0], "d/f"), &st))
	if st.Mode&0o7777 != 0o6755 {
		t.Errorf("mode %o", st.Mode)
	}
	must(t, s.Prepare(context.Background(), "c", img))
	if got := readFile(t, mounted(t, s, "c")+"/d/below"); got != "b" {
		t.Errorf("what is below says %q", got)
	}
}

// selinux tells whether the host labels every file itself.
func selinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// TestDuplicateEntries: the last one of a name counts, whatever it is.
func TestDuplicateEntries(t *testing.T) {
	s := openTest(t)
	img, err := pullLayers(t, s, tarOf(t,
		reg("a", "1"), reg("a", "2"),
		dir("b/"), reg("b/x", "x"), reg("b", "file"),
		symlink("c", "/etc/passwd"), reg("c", "file"),
		reg("d", "x"), dir("d/"), reg("d/y", "y"),
		reg("./e", "1"), reg("e", "2"),
		dir("f/"), reg("f/z", "z"), dir("f/"),
	))
	must(t, err)
	must(t, s.Prepare(context.Background(), "c", img))
	root := mounted(t, s, "c")
	if got, want := tree(t, root), []string{"a", "b", "c", "d", "d/y", "e", "f", "f/z"}; !slices.Equal(got, want) {
		t.Errorf("tree %q, want %q", got, want)
	}
	for name, want := range map[string]string{"a": "2", "b": "file", "c": "file", "e": "2"} {
		if got := readFile(t, root+"/"+name); got != want {
			t.Errorf("%s says %q", name, got)
		}
	}
}

// FuzzUnpack: whatever a layer holds, nothing outside of the store changes, and
// what is refused leaves nothing behind.
func FuzzUnpack(f *testing.F) {
	if os.Getuid() != 0 {
		f.Skip("overlayfs and file ownership need root")
	}
	for _, files := range [][]file{
		{dir("d/"), reg("d/f", "x"), symlink("l", "../../../canary"), hardlink("h", "d/f")},
		{symlink("up", "../../../.."), reg("up/canary", "hacked")},
		{hardlink("steal", "../../../../canary"), reg("steal", "hacked")},
		{reg(".wh.f", ""), reg("d/.wh..wh..opq", ""), reg("../.wh.canary", "")},
		{dir("d/"), reg("d", "x"), dir("d/"), symlink("d", "/"), reg("d/canary", "hacked")},
		{{name: "dev", hdr: tar.Header{Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o666}}, {name: "fifo", hdr: tar.Header{Typeflag: tar.TypeFifo}}},
	} {
		f.Add(tarOf(f, files...))
		f.Add(tarOf(f, files...)[:1100])
	}
	outside := f.TempDir()
	canary := filepath.Join(outside, "canary")
	must(f, os.WriteFile(canary, []byte("alive"), 0o600))
	s, err := Open(context.Background(), Options{Root: filepath.Join(outside, "s"), MaxLayerSize: 1 << 20, MaxLayerFiles: 100, Log: slog.New(slog.DiscardHandler)})
	must(f, err)
	f.Cleanup(func() { must(f, s.Close()) })
	f.Fuzz(func(t *testing.T, layer []byte) {
		img, err := s.Import(context.Background(), bytes.NewReader(layer), ImportOptions{})
		if err == nil {
			_, err = s.Remove(context.Background(), img.ID.String(), RemoveOptions{Force: true})
			must(t, err)
		} else if !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("the layer is at fault, but: %v", err)
		}
		if got := left(t, s); len(got) != 0 {
			t.Errorf("left behind: %q", got)
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(canary, &st); err != nil || st.Nlink != 1 || st.Mode&0o7777 != 0o600 || readFile(t, canary) != "alive" {
			t.Errorf("the canary was touched: %+v, %v", st, err)
		}
		if got := dirNames(t, outside); !slices.Equal(got, []string{"canary", "s"}) {
			t.Errorf("beside the canary: %q", got)
		}
	})
}
