package cgroup

import (
	"os"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launch is what the forked child needs, ready as the kernel takes it: between
// fork and execve it must not allocate.
type launch struct {
	path  *byte
	argv  []*byte
	envv  []*byte
	join  []int
	stdio [3]int
	clone cloneArgs
}

// cloneArgs is struct clone_args, clone3(2).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// aside is above every descriptor of the tests.
const aside = 900

var zero = [1]byte{'0'}

// spawnIn starts this test binary in role within the group, as a container is
// started: cloned into the cgroup2 branch, and "0" written to the tasks files by
// the child itself. A nil group starts it outside.
func spawnIn(t testing.TB, g *Group, stdin, stdout *os.File, args ...string) int {
	t.Helper()
	l := launch{stdio: [3]int{int(stdin.Fd()), int(stdout.Fd()), 2}}
	l.path = cstring(t, "/proc/self/exe")
	for _, a := range append([]string{"cgroup.test"}, args...) {
		l.argv = append(l.argv, cstring(t, a))
	}
	l.argv = append(l.argv, nil)
	l.envv = []*byte{cstring(t, roleVariable+"=1"), nil}
	l.clone = cloneArgs{exitSignal: uint64(unix.SIGCHLD)}
	if g != nil {
		files, err := joinFiles(g)
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll(files)
		for _, f := range files {
			l.join = append(l.join, int(f.Fd()))
		}
		if f := g.CloneFD(); f != nil {
			l.clone.flags |= unix.CLONE_INTO_CGROUP
			l.clone.cgroup = uint64(f.Fd())
		}
	}
	pid, errno := forkExec(&l)
	if errno != 0 {
		t.Fatalf("start a process in cgroup: %v", errno)
	}
	return pid
}

func cstring(t testing.TB, s string) *byte {
	p, err := unix.BytePtrFromString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

//go:noinline
//go:norace
func forkExec(l *launch) (int, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&l.clone)), unsafe.Sizeof(l.clone), 0)
	if errno != 0 || pid != 0 {
		return int(pid), errno
	}
	status := uintptr(100)
	for _, fd := range l.join {
		if _, _, errno = syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&zero)), 1); errno != 0 {
			status = 101
			goto fail
		}
	}
	for i, fd := range l.stdio {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(fd), uintptr(aside+i), 0); errno != 0 {
			goto fail
		}
	}
	for i := range l.stdio {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(aside+i), uintptr(i), 0); errno != 0 {
			goto fail
		}
	}
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 3, ^uintptr(0)>>33, 0)
	syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(l.path)), uintptr(unsafe.Pointer(&l.argv[0])), uintptr(unsafe.Pointer(&l.envv[0])))
fail:
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, status, 0, 0)
	}
}

// runChain replaces itself by a forked child again and again: whoever lists
// processes and then signals them finds them gone.
//
//go:norace
func runChain() {
	for {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			continue // barred from forking
		}
		if pid != 0 {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
}

// forkWaiting forks n children that wait for the end of input, and says how many it
// got. A child is one task that needs no other: a Go program that may start no
// thread ends, and so might this one if it was to start programs at its limit.
//
//go:norace
func forkWaiting(n int) (got int) {
	var b [1]byte
	for range n {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			continue
		}
		if pid != 0 {
			got++
			continue
		}
		for {
			if n, _, _ := syscall.RawSyscall(unix.SYS_READ, 0, uintptr(unsafe.Pointer(&b)), 1); n != 1 {
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
	}
	return got
}

// forkJoin forks a child that joins the files' cgroups and ends. It leaves in out
// what the writes took, in nanoseconds: all of them, then each.
//
//go:noinline
//go:norace
func forkJoin(l *launch, out *[33]int64) (int, syscall.Errno) {
	var a, b unix.Timespec
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&l.clone)), unsafe.Sizeof(l.clone), 0)
	if errno != 0 || pid != 0 {
		return int(pid), errno
	}
	syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&a)), 0)
	first := a
	for i, fd := range l.join {
		if _, _, errno = syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&zero)), 1); errno != 0 {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 101, 0, 0)
		}
		syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&b)), 0)
		out[1+i] = (b.Sec-a.Sec)*1e9 + b.Nsec - a.Nsec
		a = b
	}
	out[0] = (a.Sec-first.Sec)*1e9 + a.Nsec - first.Nsec
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// sharedTimes is memory that a forked child shares with its parent.
func sharedTimes(t testing.TB) *[33]int64 {
	m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	return (*[33]int64)(unsafe.Pointer(&m[0]))
}

// joinFiles opens what a child writes "0" to.
func joinFiles(g *Group) ([]*os.File, error) {
	var files []*os.File
	for _, path := range g.JoinPaths() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
