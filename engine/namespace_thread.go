package engine

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inMountNamespace runs f on a thread of its own that may change its mount
// namespace: with ns nil it gets a new one, a private copy of ours; else it enters
// ns. The thread ends with f; what f starts does not run on it.
func inMountNamespace(ns *os.File, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread never ends: another does the work.
			err := inMountNamespace(ns, f)
			runtime.UnlockOSThread()
			result <- err
			return
		}
		// Not unlocked, so that the runtime ends the thread with the goroutine.
		if err := enterMountNamespace(ns); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func enterMountNamespace(ns *os.File) error {
	if ns != nil {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		return os.NewSyscallError("setns", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS))
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return os.NewSyscallError("mount", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}
