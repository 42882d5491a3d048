package network

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestDump(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name string
		err  error // of the attempts before
		n    int   // how many these are
		want error
	}{
		{"at once", nil, 0, nil},
		{"changed meanwhile", netlink.ErrDumpInterrupted, 3, nil},
		{"a signal", unix.EINTR, 1, nil},
		{"never whole", netlink.ErrDumpInterrupted, 1000, netlink.ErrDumpInterrupted},
		{"another error", broken, 1, broken},
	} {
		asked := 0
		list, err := dump(func() ([]int, error) {
			if asked++; asked <= tc.n {
				return nil, fmt.Errorf("list: %w", tc.err)
			}
			return []int{1}, nil
		})
		if !errors.Is(err, tc.want) || (err == nil) != (len(list) == 1) {
			t.Errorf("%s: %v, %v after %d attempts", tc.name, list, err, asked)
		}
	}
}
