package criu

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
)

func TestMessagesAreProtocolBuffers(t *testing.T) {
	images, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	o := Options{Images: images, Pid: 300, Log: "x.log", Sibling: true, LazyPages: true, Mounts: []Pair{{"/a", "/b"}},
		InheritFDs: map[string]int{"pipe:[1]": 1}, External: []string{"e"}, CgroupMode: 3}
	seen := map[int]string{}
	if err := fields(o.encode(), func(field int, v uint64, b []byte) {
		if b == nil {
			b = []byte{byte(v), byte(v >> 8)}
		}
		seen[field] = string(b)
	}); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[int]string{
		2: "\x2c\x01", 10: "x.log", 26: "\x01\x00", 48: "\x01\x00", 23: "\n\x02/a\x12\x02/b", 27: "\n\x08pipe:[1]\x10\x01", 37: "e", 34: "\x03\x00",
	} {
		if seen[field] != want {
			t.Errorf("field %d is %q, want %q", field, seen[field], want)
		}
	}
	if _, ok := seen[3]; ok {
		t.Error("a flag that is not set was sent")
	}
}

func TestAnswersAreUnderstood(t *testing.T) {
	// criu_resp{type: RESTORE, success, restore{pid: 1234}}, and one of a newer CRIU with
	// fields of every wire type that nobody knows.
	for _, b := range [][]byte{
		{0x08, 2, 0x10, 1, 0x22, 3, 0x08, 0xd2, 0x09},
		{0x08, 2, 0x10, 1, 0xf9, 0x07, 1, 2, 3, 4, 5, 6, 7, 8, 0xfd, 0x07, 1, 2, 3, 4, 0x22, 3, 0x08, 0xd2, 0x09},
	} {
		if r, err := decode(b); err != nil || r.kind != Restore || !r.success || r.pid != 1234 {
			t.Errorf("%x: %+v, %v", b, r, err)
		}
	}
	notification := []byte{0x08, 6, 0x10, 1, 0x2a, 9, 0x0a, 5}
	notification = append(append(notification, "hello"...), 0x10, 7)
	if r, err := decode(notification); err != nil || r.notification.Script != "hello" || r.notification.Pid != 7 {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzDecode: whatever comes over the socket, it is an answer or an error.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x08, 2, 0x10, 1, 0x22, 3, 0x08, 0xd2, 0x09})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add(bytes.Repeat([]byte{0xff}, 20))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = decode(b) })
}

func TestMissingProgram(t *testing.T) {
	_, err := Start("/nonexistent/criu", [3]*os.File{}, nil, nil)
	if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "needs criu") || !strings.Contains(errdefs.Hint(err), "install the package criu") {
		t.Errorf("%v, hint %q", err, errdefs.Hint(err))
	}
}

// The real program must understand us, also where it does not know the kernel.
func TestVersionOfTheProgram(t *testing.T) {
	if _, err := exec.LookPath("criu"); err != nil {
		t.Skip("needs criu")
	}
	worker, err := Start("criu", [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := worker.Version()
	if err != nil || n < 30000 {
		t.Errorf("version %d, %v", n, err)
	}
}
