package network

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

func TestNamespaceIsNewWithLoopbackUp(t *testing.T) {
	s := openStore(t, testOptions(t))
	path, err := s.NewNamespace("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := runIn(path, func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Attrs().Name == "lo" && l.Attrs().RawFlags&unix.IFF_UP != 0 {
				return nil
			}
			if l.Attrs().Name == s.opts.BridgeLink {
				return errors.New("the bridge is in it")
			}
		}
		return errors.New("lo is not up")
	}); err != nil {
		t.Error(err)
	}
	if _, err := s.NewNamespace("a"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("second namespace of the name: %v, want a conflict", err)
	}
	for range 2 { // the second finds nothing
		if err := s.RemoveNamespace("a"); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(s.opts.NetnsDir); err != nil || len(entries) != 0 {
		t.Errorf("left in the directory of pins: %v, %v", entries, err)
	}
}

// TestPinOfCrash: a crash between making the file and mounting on it.
func TestPinOfCrash(t *testing.T) {
	s := openStore(t, testOptions(t))
	path := filepath.Join(s.opts.NetnsDir, "half")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveNamespace("half"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("file remains: %v", err)
	}
}

func TestNamespaceIDStaysInItsDirectory(t *testing.T) {
	s := &Store{opts: Options{NetnsDir: t.TempDir()}}
	for _, id := range []string{"", ".", "..", "../x", "a/b", ".hidden", "a\x00", strings.Repeat("a", 129)} {
		if _, err := s.NewNamespace(id); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("NewNamespace(%q): %v, want invalid", id, err)
		}
		if err := s.RemoveNamespace(id); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("RemoveNamespace(%q): %v, want invalid", id, err)
		}
	}
}

// TestPinDoesNotPropagate: with / shared, as systemd has it, other mount
// namespaces must not get the pins, or they would keep the namespaces alive.
func TestPinDoesNotPropagate(t *testing.T) {
	needRoot(t)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Error(err)
		}
	})
	s := openStore(t, testOptions(t))
	peer := exec.Command("cat") // lives until its input ends
	peer.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	in, err := peer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := peer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := peer.Wait(); err != nil {
			t.Error(err)
		}
	}()
	control := t.TempDir()
	if err := unix.Mount(control, control, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(control, unix.MNT_DETACH)
	path, err := s.NewNamespace("a")
	if err != nil {
		t.Fatal(err)
	}
	mounts := readFile(t, fmt.Sprintf("/proc/%d/mountinfo", peer.Process.Pid))
	if !strings.Contains(mounts, " "+control+" ") {
		t.Fatal("the peer does not get mounts at all: the test shows nothing")
	}
	if strings.Contains(mounts, path) {
		t.Error("the pin is mounted in another mount namespace")
	}
	if !strings.Contains(readFile(t, "/proc/self/mountinfo"), path) {
		t.Error("the pin is not mounted here")
	}
}
