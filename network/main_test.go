package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideVar marks the process that has network and mounts of its own.
const insideVar = "BERTH_NETWORK_TEST_INSIDE"

// TestMain runs the tests in a network and mount namespace of their own, so
// that the host's links, tables, sysctls and mounts are neither used nor
// touched. Without root, tests that need it skip.
func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(insideVar) != "" {
		if err := prepareInside(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare test namespace:", err)
			os.Exit(2)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run tests in a namespace:", err)
		os.Exit(2)
	}
}

func prepareInside() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return setLoopbackUp()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes namespaces, links and firewall tables")
	}
}

// testOptions are a store's of its own directories.
func testOptions(t testing.TB) Options {
	t.Helper()
	dir := t.TempDir()
	return Options{
		StateDir:   filepath.Join(dir, "state"),
		RunDir:     filepath.Join(dir, "run"),
		NetnsDir:   filepath.Join(dir, "netns"),
		BridgeLink: "test0",
		Subnet:     netip.MustParsePrefix("10.77.0.0/24"),
	}
}

func openStore(t testing.TB, opts Options) *Store {
	t.Helper()
	needRoot(t)
	s, err := Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), Purge(context.Background(), opts)); err != nil {
			t.Error(err)
		}
	})
	return s
}
