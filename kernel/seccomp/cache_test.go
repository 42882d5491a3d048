package seccomp

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
)

func openCache(t testing.TB) (*Cache, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "seccomp")
	c, err := OpenCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, dir
}

func notifying() *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_LOG"},
		Syscalls: []specs.LinuxSyscall{on(specs.ActNotify, "mknod mystery other"), on(specs.ActAllow, "read")},
	}
}

func TestCacheReturnsWhatCompileDoes(t *testing.T) {
	c, dir := openCache(t)
	for _, p := range []*specs.LinuxSeccomp{dockerProfile(t), notifying()} {
		want, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"compiled", "cached"} {
			if got, err := c.Filter(p); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s filter differs: %v", kind, err)
			}
		}
		if got, err := c.load(Digest(p)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("stored filter differs: %v", err)
		}
		st, err := os.Stat(filepath.Join(dir, Digest(p)))
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("file has mode %v, %v", st.Mode(), err)
		}
	}
	if f, err := c.Filter(nil); f != nil || err != nil {
		t.Errorf("nil profile: %v, %v", f, err)
	}
	if _, err := c.Filter(&specs.LinuxSeccomp{}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("invalid profile: %v", err)
	}
	assertNoLeftovers(t, dir, 2)
}

func assertNoLeftovers(t *testing.T, dir string, files int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != files {
		t.Errorf("cache holds %v, %v; want %d files", entries, err, files)
	}
}

// TestDamagedFileIsReplaced cuts the file at every length and flips every byte.
func TestDamagedFileIsReplaced(t *testing.T) {
	c, dir := openCache(t)
	p := notifying()
	want, err := c.Filter(p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, Digest(p))
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(what string, at int, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.load(Digest(p)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Fatalf("%s at %d: loaded, %v", what, at, err)
		}
		if got, err := c.Filter(p); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s at %d: filter differs: %v", what, at, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, sound) {
			t.Fatalf("%s at %d: file not repaired, %v", what, at, err)
		}
	}
	for i := range sound {
		damage("cut", i, sound[:i])
		flipped := bytes.Clone(sound)
		flipped[i] ^= 0x10
		damage("flip", i, flipped)
	}
	damage("grown", len(sound), append(bytes.Clone(sound), make([]byte, insnSize)...))
}

func TestCacheTrustsNobodyElse(t *testing.T) {
	c, dir := openCache(t)
	p := notifying()
	key := Digest(p)
	if _, err := c.Filter(p); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, key)
	if err := os.Chmod(path, 0o602); err != nil {
		t.Fatal(err)
	}
	if _, err := c.load(key); !errors.Is(err, errdefs.ErrPermission) {
		t.Errorf("file others may write: %v", err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.Rename(path, other); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, path); err != nil {
		t.Fatal(err)
	}
	if _, err := c.load(key); err == nil {
		t.Error("followed a symbolic link")
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCache(dir); !errors.Is(err, errdefs.ErrPermission) {
		t.Errorf("open directory: %v", err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, 1, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCache(dir); !errors.Is(err, errdefs.ErrPermission) {
		t.Errorf("somebody's directory: %v", err)
	}
}

func TestUnwritableCacheStillCompiles(t *testing.T) {
	c, dir := openCache(t)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if f, err := c.Filter(notifying()); err != nil || len(f.Insns) == 0 {
		t.Errorf("filter %v, %v", f, err)
	}
}

func TestCacheUsedAtOnce(t *testing.T) {
	c, dir := openCache(t)
	want, err := Compile(notifying())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if got, err := c.Filter(notifying()); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("filter differs: %v", err)
				}
				os.Remove(filepath.Join(dir, Digest(notifying())))
			}
		})
	}
	wg.Wait()
	entries, err := filepath.Glob(filepath.Join(dir, "new-*"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

func TestDigestTellsProfilesApart(t *testing.T) {
	one := uint(1)
	base := func() *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86},
			Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "read write", cond(1, specs.OpEqualTo, 2, 3))}}
	}
	seen := map[string]string{Digest(base()): "base"}
	for what, change := range map[string]func(p *specs.LinuxSeccomp){
		"default":     func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActKill },
		"errno":       func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = &one },
		"arch":        func(p *specs.LinuxSeccomp) { p.Architectures[0] = specs.ArchX32 },
		"no arch":     func(p *specs.LinuxSeccomp) { p.Architectures = nil },
		"empty flags": func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{} },
		"flag":        func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{"x"} },
		"names":       func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"readwrite"} },
		"name moved":  func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"rea", "dwrite"} },
		"action":      func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActLog },
		"rule errno":  func(p *specs.LinuxSeccomp) { p.Syscalls[0].ErrnoRet = &one },
		"index":       func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Index = 2 },
		"value":       func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Value = 3 },
		"value two":   func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].ValueTwo = 2 },
		"operator":    func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Op = specs.OpNotEqual },
		"no args":     func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args = nil },
		"rule twice":  func(p *specs.LinuxSeccomp) { p.Syscalls = append(p.Syscalls, p.Syscalls[0]) },
	} {
		p := base()
		change(p)
		if other, taken := seen[Digest(p)]; taken {
			t.Errorf("%s has the digest of %s", what, other)
		}
		seen[Digest(p)] = what
	}
	p := base()
	p.ListenerPath = "/elsewhere"
	if Digest(p) != Digest(base()) {
		t.Error("listener path changes the digest")
	}
}

// TestOutputBelongsToVersion fails when the compiler's output or the table changes:
// change compilerVersion with the sum below, or old cached filters stay in use.
func TestOutputBelongsToVersion(t *testing.T) {
	const want = "ffb61b41197825bf"
	h := sha256.New()
	h.Write([]byte(compilerVersion))
	for _, row := range syscallTable {
		h.Write(appendString(nil, row.name))
		for _, nr := range row.nr {
			h.Write(appendLength(nil, int(nr)))
		}
		h.Write([]byte{row.mux})
	}
	for _, p := range []*specs.LinuxSeccomp{far(40), notifying(), multiArch()} {
		f, err := compileFor(p, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		h.Write(f.Bytes())
	}
	if got := hex.EncodeToString(h.Sum(nil)[:8]); got != want {
		t.Errorf("sum %s, want %s: set it here and change compilerVersion", got, want)
	}
}

func multiArch() *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: allArches}
	for i, row := range syscallTable {
		switch {
		case i%5 == 0:
		case i%7 == 0:
			p.Syscalls = append(p.Syscalls, on(specs.ActTrap, row.name, cond(uint(i%6), specs.OpGreaterThan, uint64(i))))
		default:
			p.Syscalls = append(p.Syscalls, on(specs.ActAllow, row.name))
		}
	}
	return p
}

func BenchmarkDigestDocker(b *testing.B) {
	p := dockerProfile(b)
	b.ReportAllocs()
	for b.Loop() {
		Digest(p)
	}
}

func BenchmarkCacheHitDocker(b *testing.B) {
	c, _ := openCache(b)
	p := dockerProfile(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Filter(p); err != nil {
			b.Fatal(err)
		}
	}
}
