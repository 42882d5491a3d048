package systemd

import (
	"errors"
	"slices"
	"testing"

	"github.com/berth-containers/berth/errdefs"
)

func TestParsePath(t *testing.T) {
	for _, c := range []struct {
		path string
		user bool
		want Scope
	}{
		{"machine.slice:libpod:abc", false, Scope{"machine.slice", "libpod-abc.scope", false}},
		{":berth:x", false, Scope{"system.slice", "berth-x.scope", false}},
		{":berth:x", true, Scope{"user.slice", "berth-x.scope", true}},
		{"kubepods-besteffort-pod1.slice::x_y.z", false, Scope{"kubepods-besteffort-pod1.slice", "x_y.z.scope", false}},
		{"-.slice:a:b", false, Scope{"-.slice", "a-b.scope", false}},
	} {
		if got, err := ParsePath(c.path, c.user); err != nil || *got != c.want {
			t.Errorf("%q is %+v (%v), want %+v", c.path, got, err, c.want)
		}
	}
	for _, path := range []string{
		"/berth/x", "x", "a:b", "a:b:c:d", "system.slice:berth:", "system.slice:be/rth:x", "system.slice:berth:x/../y",
		"system:berth:x", "a--b.slice:p:x", ".slice:p:x", "../x.slice:p:x", "a/b.slice:p:x", "-a.slice:p:x", "s.slice:p:x\n",
	} {
		if got, err := ParsePath(path, false); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q is %+v (%v), want invalid", path, got, err)
		}
	}
}

func TestSlicePath(t *testing.T) {
	for slice, want := range map[string]string{
		"-.slice": "", "system.slice": "/system.slice", "a-b-c.slice": "/a.slice/a-b.slice/a-b-c.slice",
	} {
		if got, err := slicePath(slice); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", slice, got, err, want)
		}
	}
}

func TestBusSocket(t *testing.T) {
	for _, c := range []struct {
		user bool
		env  map[string]string
		want string
	}{
		{false, nil, "/run/dbus/system_bus_socket"},
		{false, map[string]string{"DBUS_SYSTEM_BUS_ADDRESS": "tcp:host=x;unix:guid=1,path=/x/y"}, "/x/y"},
		{true, map[string]string{"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/bus"},
		{true, map[string]string{"DBUS_SESSION_BUS_ADDRESS": "unix:path=/z", "XDG_RUNTIME_DIR": "/run/user/7"}, "/z"},
	} {
		if got, err := busSocket(c.user, func(name string) string { return c.env[name] }); err != nil || got != c.want {
			t.Errorf("%v %v: %q (%v), want %q", c.user, c.env, got, err, c.want)
		}
	}
	if got, err := busSocket(true, func(string) string { return "" }); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("no user bus: %q, %v", got, err)
	}
}

// TestLimits compares with what systemd itself makes of the same figures, shown
// by systemctl show.
func TestLimits(t *testing.T) {
	show := func(file, value string) []string {
		list, err := Limits(file, value)
		if err != nil {
			t.Errorf("%s=%s: %v", file, value, err)
		}
		var out []string
		for _, p := range list {
			var e encoder
			p.value(&e)
			d := decoder{buf: e.buf}
			s := p.Name + " " + p.signature
			switch p.signature {
			case "t":
				s += " " + hex(d.take(8))
			case "ay":
				s += " " + hex(d.take(int(d.uint32())))
			}
			out = append(out, s)
		}
		return out
	}
	for _, c := range []struct {
		file, value string
		want        []string
	}{
		{"memory.max", "256", []string{"MemoryMax t 0001000000000000"}},
		{"memory.swap.max", "max", []string{"MemorySwapMax t ffffffffffffffff"}},
		{"pids.max", "7", []string{"TasksMax t 0700000000000000"}},
		{"cpu.max", "50000 100000", []string{"CPUQuotaPeriodUSec t a086010000000000", "CPUQuotaPerSecUSec t 20a1070000000000"}},
		{"cpu.max", "max", []string{"CPUQuotaPerSecUSec t ffffffffffffffff"}},
		{"cpu.max", "1 100000", []string{"CPUQuotaPeriodUSec t a086010000000000", "CPUQuotaPerSecUSec t 1027000000000000"}},
		{"cpuset.cpus", "0-2,9", []string{"AllowedCPUs ay 0702"}},
		{"cpuset.mems", "", []string{"AllowedMemoryNodes ay "}},
		{"io.weight", "default 200\n8:0 5", []string{"IOWeight t c800000000000000"}},
		{"io.weight", "8:0 5", nil},
		{"hugetlb.2MB.max", "1", nil},
	} {
		if got := show(c.file, c.value); !slices.Equal(got, c.want) {
			t.Errorf("%s=%q: %q, want %q", c.file, c.value, got, c.want)
		}
	}
	for file, value := range map[string]string{"memory.max": "x", "cpu.max": "1 0", "cpuset.cpus": "3-1", "pids.max": "-1"} {
		if got, err := Limits(file, value); err == nil {
			t.Errorf("%s=%s is %v, want an error", file, value, got)
		}
	}
}

func hex(b []byte) string {
	const digits = "0123456789abcdef"
	var s []byte
	for _, c := range b {
		s = append(s, digits[c>>4], digits[c&15])
	}
	return string(s)
}

// TestDecodeNonsense: what a peer sends never makes more than an error.
func TestDecodeNonsense(t *testing.T) {
	good := (&call{"a.b", "/p", "a.b.C", "M", "s", func(e *encoder) { e.string("hello") }}).encode(7)
	if size, err := messageSize(good[:16]); err != nil || size != len(good) {
		t.Fatalf("size %d (%v), want %d", size, err, len(good))
	}
	m, err := decodeMessage(good)
	if err != nil || m.member != "M" || m.body.string() != "hello" {
		t.Fatalf("%+v, %v", m, err)
	}
	for i := range good {
		for _, v := range []byte{0, 1, 0x7f, 0xff} {
			bad := slices.Clone(good)
			bad[i] = v
			size, err := messageSize(bad[:16])
			if err != nil || size > len(bad) {
				continue
			}
			if m, err := decodeMessage(bad[:size]); err == nil {
				m.body.string()
				m.body.uint32()
			}
		}
	}
	if _, err := messageSize([]byte("B\x01\x00\x01aaaabbbbcccc")); !errors.Is(err, errMalformed) {
		t.Errorf("big-endian: %v", err)
	}
}
