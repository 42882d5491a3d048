package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

func overTheWire(t *testing.T, err error) error {
	t.Helper()
	data, jsonErr := json.Marshal(newFailure(err))
	must(t, jsonErr)
	var f failure
	must(t, json.Unmarshal(data, &f))
	return f.err()
}

func TestErrorsTravelIntact(t *testing.T) {
	step := &oci.StepError{Step: "mount proc on /proc", Errno: unix.EPERM}
	for _, err := range []error{
		errors.New("plain"),
		fmt.Errorf("x: %w", errdefs.ErrNotFound), fmt.Errorf("x: %w", errdefs.ErrConflict),
		fmt.Errorf("x: %w", errdefs.ErrInvalid), fmt.Errorf("x: %w", errdefs.ErrUnsupported),
		fmt.Errorf("x: %w", errdefs.ErrUnavailable), fmt.Errorf("x: %w", errdefs.ErrPermission),
		fmt.Errorf("x: %w", errdefs.ErrNotModified),
		errdefs.WithHint(fmt.Errorf("start: %w", step), "be root"),
		fmt.Errorf("exec: %w", oci.ErrCommandNotFound),
		fmt.Errorf("exec: %w: %w", oci.ErrCommandNotExecutable, unix.EACCES),
	} {
		got := overTheWire(t, err)
		if got.Error() != err.Error() || errdefs.Hint(got) != errdefs.Hint(err) {
			t.Errorf("%q (%q) arrives as %q (%q)", err, errdefs.Hint(err), got, errdefs.Hint(got))
		}
		for _, target := range []error{
			errdefs.ErrNotFound, errdefs.ErrConflict, errdefs.ErrInvalid, errdefs.ErrUnsupported,
			errdefs.ErrUnavailable, errdefs.ErrPermission, errdefs.ErrNotModified,
			oci.ErrCommandNotFound, oci.ErrCommandNotExecutable, unix.EPERM, unix.EACCES,
		} {
			if errors.Is(err, target) != errors.Is(got, target) {
				t.Errorf("%q: is %v: %t here, %t there", err, target, errors.Is(err, target), errors.Is(got, target))
			}
		}
	}
	var e *Error
	if err := overTheWire(t, step); !errors.As(err, &e) || e.Step != step.Step {
		t.Errorf("step of %v", err)
	}
}

func socketPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		must(t, err)
		conns[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return conns[0], conns[1]
}

func TestFrameCarriesFiles(t *testing.T) {
	a, b := socketPair(t)
	f, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer f.Close()
	must(t, writeFrame(a, map[string]int{"n": 1}, f, f))
	must(t, writeFrame(a, map[string]int{"n": 2}))
	for n, files := range []int{2, 0} {
		body, got, err := readFrame(b)
		must(t, err)
		if string(body) != fmt.Sprintf(`{"n":%d}`, n+1) || len(got) != files {
			t.Errorf("body %s with %d files", body, len(got))
		}
		for _, g := range got {
			if !sameFile(g, f.Name()) {
				t.Error("another file arrived")
			}
			if flags, err := unix.FcntlInt(g.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("flags %x, %v", flags, err)
			}
		}
		closeAll(got)
	}
}
