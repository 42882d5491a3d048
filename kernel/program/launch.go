package program

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Interpreter is the executable that runs programs: a memory file sealed
// against every change, so that a container which reaches it through
// /proc/self/exe finds nothing of the host and nothing it could alter.
// One serves any number of processes.
type Interpreter struct {
	file *os.File
}

// NewInterpreter makes the executable. It fails where memory files may not be
// executed (sysctl vm.memfd_noexec=2).
func NewInterpreter() (*Interpreter, error) {
	file, err := newExecutable(interpreterCode())
	if err != nil {
		return nil, fmt.Errorf("make interpreter file: %w", err)
	}
	return &Interpreter{file}, nil
}

// InitFile is the descriptor from which the init of [NewInit] reads the process
// id of the command: an event counter, eventfd(2).
const InitFile = 62

// InitName is what the init calls itself.
const InitName = "berth-init"

// NewInit makes the executable of a container's init, sealed as the interpreter's
// is. It forwards signals to the command, reaps whatever ends, and exits as the
// command does. It expects to have started the command before it is executed: see
// init_*.s.
func NewInit() (*os.File, error) {
	file, err := newExecutable(initCode())
	if err != nil {
		return nil, fmt.Errorf("make init file: %w", err)
	}
	return file, nil
}

// newExecutable makes a sealed memory file that can be executed.
func newExecutable(code []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("berth-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // MFD_EXEC came with Linux 6.3
		fd, err = unix.MemfdCreate("berth-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "berth-init")
	if err := fillSealed(file, executable(code)); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func fillSealed(f *os.File, b []byte) error {
	if _, err := f.Write(b); err != nil {
		return err
	}
	// F_SEAL_EXEC (Linux 6.3) forbids to change the mode as well, which a
	// privileged process of a container could do through /proc/PID/exe to keep
	// further containers from starting; for an executable it implies the seals
	// against writing.
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_EXEC)
	if errors.Is(err, unix.EINVAL) {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS,
			unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_FUTURE_WRITE)
	}
	return err
}

// Close releases the executable; processes running it are not affected.
func (i *Interpreter) Close() error { return i.file.Close() }

// Launch says how a program's process is made.
type Launch struct {
	// Image is the encoded program, complete, in a file of its own: memory, or a
	// file that others may read for the [Report]. The process maps it shared.
	Image *os.File
	// Stdio are descriptors 0, 1 and 2; nil means closed.
	Stdio [3]*os.File
	// Sync becomes descriptor 4: for the program to speak with its parent.
	Sync *os.File
	// Files become descriptors 5 and up. Descriptor 3 is the image's until the
	// program starts.
	Files []*os.File
	// Attr gives namespaces, the cgroup and the user mappings. Its PidFD is
	// used by Start.
	Attr *syscall.SysProcAttr
	// Name is the process's argv[0] until the program execs.
	Name string
}

// The descriptor numbers of Launch.Sync and Launch.Files[0].
const (
	SyncFile  = 4
	FirstFile = 5
)

// Start makes the process; it returns as soon as the interpreter runs. The
// caller must reap the process.
func (i *Interpreter) Start(l *Launch) (pid int, pidfd *os.File, err error) {
	files := make([]uintptr, 0, FirstFile+len(l.Files))
	for _, f := range l.Stdio {
		files = append(files, fdOf(f))
	}
	files = append(files, l.Image.Fd(), fdOf(l.Sync))
	for _, f := range l.Files {
		files = append(files, fdOf(f))
	}
	exe, err := unix.FcntlInt(i.file.Fd(), unix.F_DUPFD_CLOEXEC, beyond(files))
	if err != nil {
		return 0, nil, fmt.Errorf("start interpreter: %w", err)
	}
	defer unix.Close(exe)
	attr := *l.Attr
	fd := -1
	attr.PidFD = &fd
	path := "/proc/self/fd/" + strconv.Itoa(exe)
	pid, err = syscall.ForkExec(path, []string{l.Name}, &syscall.ProcAttr{Files: files, Env: []string{}, Sys: &attr})
	if err != nil {
		return 0, nil, err
	}
	return pid, os.NewFile(uintptr(fd), "pidfd"), nil
}

// beyond is the first descriptor number that ForkExec leaves alone: in the
// child, before it executes, it moves its pipe and those of files that are in
// the way to just above the highest of them. (Not higher than need be: above 63
// the kernel has to grow this process's table, which waits for every processor,
// 10 ms.)
func beyond(files []uintptr) int {
	top := len(files)
	for _, fd := range files {
		top = max(top, int(fd))
	}
	return top + len(files) + 3
}

func fdOf(f *os.File) uintptr {
	if f == nil {
		return ^uintptr(0)
	}
	return f.Fd()
}

// NewImage puts an encoded program into an anonymous memory file.
func NewImage(img []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("berth-program", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // MFD_NOEXEC_SEAL came with Linux 6.3
		fd, err = unix.MemfdCreate("berth-program", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make program file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "berth-program")
	if _, err := f.Write(img); err != nil {
		f.Close()
		return nil, fmt.Errorf("write program file: %w", err)
	}
	return f, nil
}

// Report is how far a program came, read from its image.
type Report struct {
	// Failed is set when an op failed with an errno it does not tolerate.
	Failed bool
	// Op is the index of the failed op, or else of the last one begun, not
	// counting an exit_group.
	Op int
	// Errno is the failed op's.
	Errno syscall.Errno
}

// ReadReport reads the report from a program's image, while it runs or after.
func ReadReport(image *os.File) (Report, error) {
	var h [headerSize]byte
	if _, err := image.ReadAt(h[:], 0); err != nil {
		return Report{}, fmt.Errorf("read program file: %w", err)
	}
	le := binary.LittleEndian
	stride := le.Uint64(h[hdrStride:])
	if le.Uint64(h[hdrMagic:]) != imageMagic || stride == 0 {
		return Report{}, fmt.Errorf("read program file: not a program")
	}
	return Report{
		Failed: le.Uint64(h[hdrState:]) == stateFailed,
		Op:     int(le.Uint64(h[hdrCurrent:]) / stride),
		Errno:  syscall.Errno(le.Uint64(h[hdrErrno:])),
	}, nil
}

// InCall tells from a program's image whether its op at index i makes that system
// call.
func InCall(image *os.File, i int, sys Sys) (bool, error) {
	var stride [8]byte
	var nr [4]byte
	if _, err := image.ReadAt(stride[:], hdrStride); err != nil {
		return false, fmt.Errorf("read program file: %w", err)
	}
	// With a trace the op comes after the call that takes the time.
	next := int64(binary.LittleEndian.Uint64(stride[:]))
	if _, err := image.ReadAt(nr[:], headerSize+int64(i+1)*next-opSize+opNr); err != nil {
		return false, fmt.Errorf("read program file: %w", err)
	}
	return binary.LittleEndian.Uint32(nr[:]) == sys.Nr, nil
}

// ReadSlot reads a slot's value from the image of this program.
func (p *Program) ReadSlot(image *os.File, slot Arg) (uint64, error) {
	var b [8]byte
	at := int64(headerSize+len(p.ops)*p.stride()) + int64(slot.val)
	if _, err := image.ReadAt(b[:], at); err != nil {
		return 0, fmt.Errorf("read program file: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}
