package oci

import (
	"encoding/json"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	p "github.com/berth-containers/berth/kernel/program"
)

// listener is where the notifications of a seccomp filter go: a socket on which
// an agent takes the descriptor (config-linux.md, "Seccomp", listenerPath).
type listener struct {
	path, metadata string
	state          specs.State // of the container; the pid is 0 where it is the process's
	taken          bool        // the process tells the descriptor's number
	number         p.Arg
}

// handOverListener passes the process's listener to the agent. It came with a
// message, or is taken out of the process.
func (pr *Process) handOverListener(sync *os.File, oob []byte) error {
	if err := pr.becomeClone(); err != nil {
		return err
	}
	l := pr.plan.listener
	var err error
	fd := -1
	if l.taken {
		fd, err = pr.takeListener()
	} else if fds := descriptors(oob); len(fds) == 1 {
		fd = fds[0]
	} else {
		err = fmt.Errorf("no descriptor came")
	}
	if err == nil {
		err = l.send(pr.Pid, fd)
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", listenerStep, err)
	}
	// It may not wait: then it has ended, or runs the command already.
	_ = unix.Sendmsg(int(sync.Fd()), []byte("g"), nil, nil, unix.MSG_NOSIGNAL)
	return nil
}

// takeListener copies the descriptor out of the process.
func (pr *Process) takeListener() (int, error) {
	number, err := pr.plan.Program.ReadSlot(pr.image, pr.plan.listener.number)
	if err != nil {
		return -1, err
	}
	return unix.PidfdGetfd(int(pr.Pidfd.Fd()), int(number), 0)
}

// send gives the descriptor to the agent with the state of its process, one
// connection for it alone.
func (l *listener) send(pid, fd int) error {
	state := l.state
	if state.Pid == 0 {
		state.Pid = pid
	}
	b, err := json.Marshal(specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: l.metadata, State: state,
	})
	if err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	if err := unix.Connect(socket, &unix.SockaddrUnix{Name: l.path}); err != nil {
		return errdefs.WithHint(fmt.Errorf("linux.seccomp.listenerPath %s: %w", l.path, err), "the agent must listen there before the container starts")
	}
	rights := unix.UnixRights(fd)
	for len(b) > 0 { // the descriptor goes with the first part
		n, err := unix.SendmsgN(socket, b, rights, nil, unix.MSG_NOSIGNAL)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("linux.seccomp.listenerPath %s: %w", l.path, err)
		}
		if err == nil {
			b, rights = b[n:], nil
		}
	}
	return nil
}
