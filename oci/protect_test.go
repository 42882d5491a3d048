package oci

import (
	"errors"
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/kernel/cgroup"
)

func TestNoCapabilitiesNamedIsNone(t *testing.T) {
	needRoot(t)
	s := specFor(rootfs(t), "sh", "-c", "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2 | sort -u")
	s.Process.Capabilities = nil
	if got := mustRun(t, s); got != "0000000000000000" {
		t.Errorf("capabilities %s, want none", got)
	}
}

func TestHostsNullKeepsItsOwner(t *testing.T) {
	needRoot(t)
	var before, after unix.Stat_t
	if err := unix.Stat("/dev/null", &before); err != nil {
		t.Fatal(err)
	}
	s := specFor(rootfs(t), "true")
	s.Process.User.UID = before.Uid + 4321
	mustRun(t, s)
	if err := unix.Stat("/dev/null", &after); err != nil {
		t.Fatal(err)
	}
	if after.Uid != before.Uid {
		t.Errorf("/dev/null belongs to %d, before to %d", after.Uid, before.Uid)
		if err := os.Chown("/dev/null", int(before.Uid), -1); err != nil {
			t.Error(err)
		}
	}
}

func TestFailedLaunchSparesForeignCgroup(t *testing.T) {
	s := startSleeper(t, nil)
	c, err := (&Store{Root: t.TempDir()}).New("second", t.TempDir(), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Launch(s.r, s.req.Spec, LaunchOptions{}); err == nil {
		t.Fatal("a second container in the same cgroup was made")
	}
	if out, code, err := s.exec(s.process("echo", "alive")); err != nil || code != 0 || out != "alive" {
		t.Errorf("the first container: %q, %d, %v", out, code, err)
	}
}

func TestPausedWhileCreated(t *testing.T) {
	needRoot(t)
	c, err := (&Store{Root: t.TempDir()}).New("paused", t.TempDir(), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	spec := specFor(rootfs(t), "true")
	pr, err := c.Launch(runner(t), spec, LaunchOptions{Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	if err := c.Pause(); err != nil {
		t.Error(err)
	}
	if st := c.Status(); st != statePaused {
		t.Errorf("status %s, want paused", st)
	}
	if err := c.Resume(); err != nil {
		t.Error(err)
	}
	if st := c.Status(); st != specs.StateCreated {
		t.Errorf("status %s, want created", st)
	}
	_ = pr.abandon()
	if err := c.Delete(true); err != nil {
		t.Error(err)
	}
	if err := cgroup.RemoveEmpty("/berth-oci-test"); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Error(err)
	}
}
