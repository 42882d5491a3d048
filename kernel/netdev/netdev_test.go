package netdev

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

func TestCheckName(t *testing.T) {
	for name, want := range map[string]bool{
		"eth0": true, "a": true, "fifteen-letters": true, "sixteen--letters": false, "": false, ".": false, "..": false,
		"a/b": false, "a:1": false, "a b": false, "a\x00": false, "eth%d": false,
	} {
		if err := CheckName(name, false); (err == nil) != want || err != nil && !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, want := range map[string]bool{"eth%d": true, "eth0": true, "%d%d": false, "%s": false, "e%": false} {
		if err := CheckName(name, true); (err == nil) != want {
			t.Errorf("pattern %q: %v", name, err)
		}
	}
}

func TestIndex(t *testing.T) {
	c, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := c.index("nosuchdevice0"); !errors.Is(err, errdefs.ErrNotFound) || !errors.Is(err, unix.ENODEV) {
		t.Errorf("got %v", err)
	}
	if index, err := c.index("lo"); err != nil || index != 1 {
		t.Errorf("lo: %d, %v", index, err)
	}
}
