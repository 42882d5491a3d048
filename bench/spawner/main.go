// Command spawner runs the commands it is asked for on standard input and says
// on standard output how each went; see package spawn. It stays small, as its
// size is the least it can measure: no fmt, no flag, no encoding.
//
//	spawner [[join=FILE]... [unmount=DIR] exec COMMAND [ARG...]]
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/bench/spawn"
)

func main() {
	// The heap may grow to about 1 MiB, a quarter of Go's least.
	debug.SetGCPercent(25)
	var err error
	if len(os.Args) > 1 {
		err = become(os.Args[1:])
	} else {
		err = serve()
	}
	if err != nil {
		os.Stderr.WriteString("spawner: " + err.Error() + "\n")
		os.Exit(1)
	}
}

// become enters the cgroups and the mount namespace that args name and becomes
// the command after them. A namespace is a thread's: the one that enters it
// is the one that the new program begins with.
func become(args []string) error {
	runtime.LockOSThread()
	for i, arg := range args {
		verb, object, _ := strings.Cut(arg, "=")
		var err error
		switch verb {
		case "join":
			err = os.WriteFile(object, []byte("0"), 0)
		case "unmount":
			err = hide(object)
		case "exec":
			command := args[i+1:]
			return os.NewSyscallError("exec "+command[0], syscall.Exec(command[0], command, os.Environ()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hide takes a mount away from the thread, in a new namespace, so that nobody
// else misses it.
func hide(dir string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return os.NewSyscallError("mount --make-rprivate /", err)
	}
	return os.NewSyscallError("umount "+dir, unix.Unmount(dir, unix.MNT_DETACH))
}

// serve runs commands until standard input ends. Requests overlap when they
// come faster than commands end.
func serve() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	var running sync.WaitGroup
	defer running.Wait()
	s := &server{null: null}
	for {
		number, argv, err := spawn.ReadRequest(os.Stdin)
		if err != nil {
			return nil // the harness has closed its end, or is gone
		}
		running.Go(func() {
			res := s.run(argv)
			s.mu.Lock()
			defer s.mu.Unlock()
			// The harness may be gone; then there is nobody to tell.
			_ = spawn.WriteResult(os.Stdout, number, res)
		})
	}
}

type server struct {
	null *os.File

	mu    sync.Mutex // guards spare, and writes to standard output
	spare []int      // descriptors of empty files for output
}

// run runs one command. Its output goes to a file in memory and not to a pipe:
// nobody has to be scheduled to read it, and who keeps it open, such as a
// container left running, delays nothing.
func (s *server) run(argv []string) *spawn.Result {
	out, err := s.takeOutput()
	if err != nil {
		return &spawn.Result{Status: -1, Output: err.Error()}
	}
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{s.null.Fd(), uintptr(out), uintptr(out)}}
	var usage syscall.Rusage
	var status syscall.WaitStatus
	began := time.Now()
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	for err == nil {
		if _, err = syscall.Wait4(pid, &status, 0, &usage); err != syscall.EINTR {
			break
		}
		err = nil
	}
	wall := time.Since(began)
	output := s.giveBack(out)
	if err != nil {
		return &spawn.Result{Status: -1, Output: argv[0] + ": " + err.Error()}
	}
	return &spawn.Result{
		Wall: wall, User: time.Duration(usage.Utime.Nano()), System: time.Duration(usage.Stime.Nano()),
		PeakKiB: usage.Maxrss, MinorFaults: usage.Minflt, MajorFaults: usage.Majflt,
		Voluntary: usage.Nvcsw, Involuntary: usage.Nivcsw,
		Status: code(status), Output: output,
	}
}

func code(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// takeOutput returns an empty file.
func (s *server) takeOutput() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.spare); n > 0 {
		fd := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return fd, nil
	}
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	// Two descriptors of one command append to it.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("fcntl", err)
	}
	return fd, nil
}

// giveBack returns what is in the file and empties it.
func (s *server) giveBack(fd int) string {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Size == 0 {
		s.putSpare(fd)
		return ""
	}
	b := make([]byte, min(st.Size, spawn.MaxOutput))
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		n = 0
	}
	if unix.Ftruncate(fd, 0) != nil {
		unix.Close(fd)
		return string(b[:n])
	}
	s.putSpare(fd)
	return string(b[:n])
}

func (s *server) putSpare(fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare = append(s.spare, fd)
}
