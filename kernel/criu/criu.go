package criu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// Kind is what is asked for (enum criu_req_type).
type Kind int

// The requests this package makes.
const (
	Dump    Kind = 1
	Restore Kind = 2
	PreDump Kind = 4
	notify  Kind = 6
	version Kind = 10
)

func (k Kind) String() string {
	switch k {
	case Dump:
		return "dump"
	case Restore:
		return "restore"
	case PreDump:
		return "pre-dump"
	case version:
		return "version"
	}
	return fmt.Sprintf("request %d", int(k))
}

// Pair is a name of CRIU's for something, and what it stands for.
type Pair struct{ Key, Value string }

// Options are those of a dump or restore (message criu_opts); zero values are
// CRIU's defaults.
type Options struct {
	Images *os.File // the directory of the image files
	Work   *os.File // that of the log, nil for Images
	Parent string   // a path to earlier images, relative to Images
	Log    string   // name of the log file
	Pid    int      // to dump
	Root   string   // the root of the mounts

	LeaveRunning, ExtUnixSockets, TCPEstablished, TCPSkipInFlight, ShellJob, FileLocks, LinkRemap, AutoDedup bool

	TrackMemory   bool
	EvasiveDevs   bool
	Sibling       bool // a restored process becomes our child
	LazyPages     bool // memory follows when it is used (userfaultfd(2))
	OrphanPTS     bool // the master of a terminal is passed by notification
	NotifyScripts bool

	CgroupMode int    // enum criu_cg_mode
	Freezer    string // a cgroup to freeze, "" for ptrace(2)
	CgroupRoot []Pair // controller, path
	Mounts     []Pair // external mounts
	External   []string
	InheritFDs map[string]int
	JoinNS     []Pair // type, file
	EmptyNS    uint32 // clone flags
	PageServer string // an address to send pages to
	PagePort   int
	ConfigFile string

	LSMProfile, LSMMountContext string
}

func (o *Options) encode() message {
	var m message
	m.number(1, int64(o.Images.Fd()))
	if o.Pid != 0 {
		m.number(2, int64(o.Pid))
	}
	for _, f := range []struct {
		field int
		set   bool
	}{
		{3, o.LeaveRunning}, {4, o.ExtUnixSockets}, {5, o.TCPEstablished}, {6, o.EvasiveDevs}, {7, o.ShellJob}, {8, o.FileLocks},
		{12, o.NotifyScripts}, {15, o.TrackMemory}, {16, o.AutoDedup}, {18, o.LinkRemap}, {24, true}, {26, o.Sibling},
		{46, o.TCPSkipInFlight}, {48, o.LazyPages}, {50, o.OrphanPTS},
	} {
		m.flag(f.field, f.set)
	}
	const verbose = 4
	m.number(9, verbose)
	m.text(10, o.Log)
	if o.PageServer != "" {
		var server message
		server.text(1, o.PageServer)
		server.number(2, int64(o.PagePort))
		m.bytes(11, server)
	}
	m.text(13, o.Root)
	m.text(14, o.Parent)
	if o.Work != nil {
		m.number(17, int64(o.Work.Fd()))
	}
	m.number(34, int64(o.CgroupMode))
	for _, list := range []struct {
		field int
		pairs []Pair
	}{{23, o.Mounts}, {25, o.CgroupRoot}, {39, o.JoinNS}} {
		for _, p := range list.pairs {
			m.pair(list.field, p.Key, p.Value)
		}
	}
	for key, fd := range o.InheritFDs {
		var f message
		f.bytes(1, []byte(key))
		f.number(2, int64(fd))
		m.bytes(27, f)
	}
	for _, e := range o.External {
		m.bytes(37, []byte(e))
	}
	if o.EmptyNS != 0 {
		m.number(38, int64(o.EmptyNS))
	}
	m.text(44, o.Freezer)
	m.text(51, o.ConfigFile)
	m.text(53, o.LSMProfile)
	m.text(63, o.LSMMountContext)
	return m
}

// Notification is a moment of a dump or restore at which CRIU waits for the
// caller ("post-restore"), with the pid or descriptor that belongs to it.
type Notification struct {
	Script string
	Pid    int
	Files  []*os.File // the callee's to close
}

// Worker is a running "criu swrk".
type Worker struct {
	Pid    int
	socket *os.File
}

// Start runs CRIU by the program's path or name. Its standard streams become a
// restored process's, extra its descriptors from 4 on. attr may place it in a
// cgroup.
func Start(program string, stdio [3]*os.File, extra []*os.File, attr *syscall.SysProcAttr) (*Worker, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, errdefs.WithHint(fmt.Errorf("checkpoint and restore: %w: needs criu", errdefs.ErrUnsupported), "install the package criu")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("criu: make socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "criu"), os.NewFile(uintptr(fds[1]), "criu")
	defer theirs.Close()
	files := append([]*os.File{stdio[0], stdio[1], stdio[2], theirs}, extra...)
	process, err := os.StartProcess(path, []string{"criu", "swrk", "3"}, &os.ProcAttr{Files: files, Env: os.Environ(), Sys: attr})
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start criu: %w", err)
	}
	defer process.Release() //nolint:errcheck // it only forgets
	return &Worker{process.Pid, ours}, nil
}

// Stop ends the worker without a request.
func (w *Worker) Stop() error {
	if err := syscall.Kill(w.Pid, syscall.SIGKILL); err != nil { // our child, not reaped
		return err
	}
	_ = w.end(PreDump) // it was killed
	return nil
}

// response is what matters of message criu_resp.
type response struct {
	kind         Kind
	success      bool
	errno        unix.Errno
	message      string
	pid          int
	notification Notification
	major, minor int
}

// Do makes a request and answers the notifications on the way. pid is the restored
// process's. It ends the worker, but not what that has restored.
func (w *Worker) Do(kind Kind, o *Options, notified func(*Notification) error) (pid int, err error) {
	defer func() { err = errors.Join(err, w.end(kind)) }()
	var request message
	request.number(1, int64(kind))
	request.bytes(2, o.encode())
	r, err := w.ask(request)
	for err == nil && r.kind == notify {
		if err = notified(&r.notification); err != nil {
			return 0, err
		}
		var answer message
		answer.number(1, int64(notify))
		answer.flag(3, true)
		r, err = w.ask(answer)
	}
	return r.pid, err
}

// Version asks for CRIU's version: 31701 for 3.17.1 is major*10000+minor*100.
func (w *Worker) Version() (n int, err error) {
	defer func() { err = errors.Join(err, w.end(version)) }()
	var request message
	request.number(1, int64(version))
	r, err := w.ask(request)
	return r.major*10000 + r.minor*100, err
}

// ask sends a message and receives the answer.
func (w *Worker) ask(m message) (r response, err error) {
	fd := int(w.socket.Fd())
	if err := unix.Sendmsg(fd, m, nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return r, fmt.Errorf("criu: send: %w", err)
	}
	b, oob := make([]byte, 40<<10), make([]byte, unix.CmsgSpace(4*8))
	var n, oobn int
	for {
		n, oobn, _, _, err = unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	switch {
	case err != nil:
		return r, fmt.Errorf("criu: receive: %w", err)
	case n == 0:
		return r, errors.New("criu: it ended without an answer")
	}
	if r, err = decode(b[:n]); err != nil {
		return r, err
	}
	r.notification.Files = received(oob[:oobn])
	if !r.success {
		return r, fmt.Errorf("criu: %s failed: %s", r.kind, r.why())
	}
	return r, nil
}

func (r *response) why() string {
	switch {
	case r.message != "":
		return strings.TrimSpace(r.message)
	case r.errno != 0:
		return r.errno.Error()
	}
	return "it gives no reason"
}

func decode(b []byte) (r response, err error) {
	var nested [16][]byte
	err = fields(b, func(field int, v uint64, bytes []byte) {
		switch field {
		case 1:
			r.kind = Kind(v)
		case 2:
			r.success = v != 0
		case 7:
			r.errno = unix.Errno(v)
		case 9:
			r.message = string(bytes)
		case 4, 5, 10:
			nested[field] = bytes
		}
	})
	if err == nil {
		err = fields(nested[4], func(field int, v uint64, _ []byte) {
			if field == 1 {
				r.pid = int(int32(v))
			}
		})
	}
	if err == nil {
		err = fields(nested[5], func(field int, v uint64, bytes []byte) {
			switch field {
			case 1:
				r.notification.Script = string(bytes)
			case 2:
				r.notification.Pid = int(int32(v))
			}
		})
	}
	if err == nil {
		err = fields(nested[10], func(field int, v uint64, _ []byte) {
			switch field {
			case 1:
				r.major = int(v)
			case 2:
				r.minor = int(v)
			}
		})
	}
	return r, err
}

// received are the descriptors of a message.
func received(oob []byte) []*os.File {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "/dev/ptmx"))
		}
	}
	return files
}

// end waits for the worker. After a pre-dump it waits for more requests, until the
// socket is closed.
func (w *Worker) end(kind Kind) error {
	w.socket.Close()
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(w.Pid, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for criu: %w", err)
		}
		break
	}
	if kind == PreDump || status.Exited() && status.ExitStatus() == 0 {
		return nil
	}
	return fmt.Errorf("criu: ended with status %d", status)
}
