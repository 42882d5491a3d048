package network

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpTries bounds how often a list is asked for that changes while the kernel tells
// it: others make and remove links all the time on a busy host.
const dumpTries = 20

// dump asks for a list until the kernel has told it in one piece. A list with a
// break in it (NLM_F_DUMP_INTR) may lack what has been there all the time.
func dump[T any](ask func() ([]T, error)) (list []T, err error) {
	for range dumpTries {
		list, err = ask()
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return list, err
}
