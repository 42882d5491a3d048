package cgroup

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// run interprets a device program, for the few instructions it has.
func run(t testing.TB, program []instruction, kind byte, how access, major, minor uint32) bool {
	ctx := [3]uint32{uint32(how)<<16 | unix.BPF_DEVCG_DEV_CHAR, major, minor}
	if kind == 'b' {
		ctx[0] = uint32(how)<<16 | unix.BPF_DEVCG_DEV_BLOCK
	}
	var r [6]uint64
	for pc := 0; pc < len(program); pc++ {
		switch i := program[pc]; i.code {
		case opLoadWord:
			r[i.dst] = uint64(ctx[i.off/4])
		case opMove:
			r[i.dst] = uint64(uint32(r[i.src]))
		case opMoveConst:
			r[i.dst] = uint64(uint32(i.imm))
		case opAndConst:
			r[i.dst] = uint64(uint32(r[i.dst]) & uint32(i.imm))
		case opShiftDown:
			r[i.dst] = uint64(uint32(r[i.dst]) >> uint32(i.imm))
		case opJumpNE:
			if r[i.dst] != uint64(int64(i.imm)) {
				pc += int(i.off)
			}
		case opJumpSet:
			if r[i.dst]&uint64(int64(i.imm)) != 0 {
				pc += int(i.off)
			}
		case opJump:
			pc += int(i.off)
		case opExit:
			return r[regResult] != 0
		default:
			t.Fatalf("unknown instruction %#x", i.code)
		}
	}
	t.Fatal("program runs off its end")
	return false
}

// allowed is what the rules mean, by the book: the last rule that speaks of one
// bit of access decides it, and all asked bits must be allowed.
func allowed(rules []specs.LinuxDeviceCgroup, kind byte, how access, major, minor int64) bool {
	for bit := mayMknod; bit <= mayWrite; bit <<= 1 {
		ok := false
		for _, r := range rules {
			about, _ := parseAccess(r.Access, true)
			if (r.Type == "" || r.Type == "a" || r.Type[0] == kind) && about&bit != 0 &&
				(r.Major == nil || *r.Major == wildcard || *r.Major == major) && (r.Minor == nil || *r.Minor == wildcard || *r.Minor == minor) {
				ok = r.Allow
			}
		}
		if how&bit != 0 && !ok {
			return false
		}
	}
	return true
}

// TestDeviceProgramMeansTheRules compares random rule lists. A list which allows
// by several exceptions what is asked at once is where cgroup v1 (and so the
// program) is stricter than the book: one exception must cover all of it.
func TestDeviceProgramMeansTheRules(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	number := func() int64 { return rnd.Int64N(4) - 1 }
	var same, refused int
	for range 3000 {
		var rules []specs.LinuxDeviceCgroup
		for range rnd.IntN(8) {
			r := dev([]string{"a", "b", "c"}[rnd.IntN(3)], number(), number(), access(1+rnd.IntN(7)).String(), rnd.IntN(3) > 0)
			rules = append(rules, r)
		}
		set, err := compileDevices(&specs.LinuxResources{Devices: rules})
		if errors.Is(err, errdefs.ErrUnsupported) {
			refused++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if set == nil {
			continue
		}
		program := set.bpf()
		for _, kind := range []byte("bc") {
			for how := mayMknod; how <= mayAnyhow; how++ {
				for n := range int64(16) {
					got := run(t, program, kind, how, uint32(n/4), uint32(n%4))
					want := allowed(rules, kind, how, n/4, n%4)
					if got != want && !(want && !set.allow && !set.oneCovers(kind, how, n/4, n%4)) {
						t.Fatalf("%v\nset %v\n%c %d:%d %v: program says %v, rules say %v", show(rules), set, kind, n/4, n%4, how, got, want)
					}
					same++
				}
			}
		}
	}
	if same < 100000 || refused == 0 {
		t.Errorf("compared %d, refused %d: too few to mean anything", same, refused)
	}
}

func (s *deviceSet) oneCovers(kind byte, how access, major, minor int64) bool {
	for d, e := range s.exceptions {
		if d.covers(device{kind, major, minor}) && how&^e == 0 {
			return true
		}
	}
	return false
}

func show(rules []specs.LinuxDeviceCgroup) string {
	var b strings.Builder
	for _, r := range rules {
		fmt.Fprintln(&b, r.Allow, r.Type, *r.Major, *r.Minor, r.Access)
	}
	return b.String()
}

func TestDeviceRulesRefused(t *testing.T) {
	for _, r := range []specs.LinuxDeviceCgroup{
		dev("p", 1, 1, "r", true), dev("c", 1, 1, "x", true), dev("c", 1, 1, "", true), dev("c", -2, 1, "r", true), dev("c", 1, 1<<40, "r", true),
	} {
		if _, err := compileDevices(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{r}}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%+v: %v, want invalid", r, err)
		}
	}
	hole := []specs.LinuxDeviceCgroup{dev("c", 1, wildcard, "rw", true), dev("c", 1, 3, "w", false)}
	_, err := compileDevices(&specs.LinuxResources{Devices: hole})
	if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(fmt.Sprint(err), "devices[1]: rule c 1:3 w would make a hole in c 1:* rw") {
		t.Errorf("hole: %v", err)
	}
}

// TestDeviceOrder: the kernel is given the exceptions in the order of the rules.
func TestDeviceOrder(t *testing.T) {
	set, err := compileDevices(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
		dev("c", 10, 229, "rwm", true), dev("b", 8, 20, "rw", true), dev("c", 1, 3, "r", true),
		dev("c", 10, 229, "r", true), dev("b", 8, 20, "rw", false), dev("b", 10, 200, "r", true), dev("b", 8, 20, "r", true),
	}})
	if want := "[c 10:229 c 1:3 b 10:200 b 8:20]"; err != nil || fmt.Sprint(set.order) != want {
		t.Errorf("order %v, want %s: %v", set.order, want, err)
	}
}

func TestParseDevicesList(t *testing.T) {
	set, err := parseDevicesList("c 1:3 rwm\nb *:* m\nc 136:* rw\n")
	if err != nil || set.allow || fmt.Sprint(set.order) != "[c 1:3 b *:* c 136:*]" || set.exceptions[device{'c', 136, wildcard}] != mayRead|mayWrite {
		t.Errorf("%v, %v", set, err)
	}
	if set, err := parseDevicesList("a *:* rwm\n"); err != nil || !set.allow {
		t.Errorf("allow all: %v, %v", set, err)
	}
	if _, err := parseDevicesList("c 1:x rwm\n"); err == nil {
		t.Error("a malformed line is no error")
	}
}

// TestDeviceProgramInKernel attaches programs to the cgroup2 side, whose hooks
// work on a hybrid host too.
func TestDeviceProgramInKernel(t *testing.T) {
	g := newGroup(t, nil)
	b := g.unified()
	if b == nil {
		t.Skip("no cgroup2 tree on this host")
	}
	for _, c := range []struct {
		rules            []specs.LinuxDeviceCgroup
		null, zero, full bool
	}{
		{[]specs.LinuxDeviceCgroup{dev("c", 1, 3, "rw", true), dev("c", 1, 5, "r", true)}, true, false, false},
		{[]specs.LinuxDeviceCgroup{{Allow: true}, dev("c", 1, 5, "w", false), dev("c", 1, 3, "m", false), dev("b", wildcard, wildcard, "rwm", false)}, true, false, true},
		{[]specs.LinuxDeviceCgroup{dev("c", 1, wildcard, "rw", true)}, true, true, true},
	} {
		set, err := compileDevices(&specs.LinuxResources{Devices: c.rules})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.setDevicesV2(set); err != nil {
			t.Fatal(err)
		}
		m := join(t, g, "open", "/dev/null", "/dev/zero", "/dev/full")
		m.expect(fmt.Sprint("/dev/null ", c.null))
		m.expect(fmt.Sprint("/dev/zero ", c.zero))
		m.expect(fmt.Sprint("/dev/full ", c.full))
	}
	dir, err := os.Open(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fds, err := attachedDevicePrograms(int(dir.Fd()))
	if err != nil || len(fds) != 1 {
		t.Errorf("%d programs attached after three updates, want 1 (%v)", len(fds), err)
	}
	closeFDs(fds)
}
