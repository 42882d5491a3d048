package systemd

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

const (
	busName     = "org.freedesktop.DBus"
	busPath     = "/org/freedesktop/DBus"
	managerName = "org.freedesktop.systemd1"
	managerPath = "/org/freedesktop/systemd1"
	managerFace = "org.freedesktop.systemd1.Manager"
)

// answerTime bounds the wait for each message, in seconds.
const answerTime = 30

// Conn is a connection to a service manager. It serves one goroutine at a time.
type Conn struct {
	fd     int
	serial uint32
	user   bool
	jobs   map[string]string // results of jobs that ended, by their object path
}

// Connect reaches the system's service manager or, with user, that of the calling
// user. A host without it is an [errdefs.ErrUnsupported].
func Connect(user bool) (*Conn, error) {
	socket, err := busSocket(user, os.Getenv)
	if err != nil {
		return nil, err
	}
	c := &Conn{user: user, jobs: map[string]string{}}
	if err := c.open(socket); err != nil {
		return nil, needsSystemd(fmt.Errorf("%s: %w", socket, err))
	}
	for _, start := range []func() error{c.authenticate, c.hello} {
		if err := start(); err != nil {
			c.Close()
			return nil, fmt.Errorf("%s: %w", socket, err)
		}
	}
	return c, nil
}

func needsSystemd(err error) error {
	return errdefs.WithHint(errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("not supported: needs systemd: %w", err)),
		"Leave out --systemd-cgroup, or set the caller's cgroup driver to cgroupfs.")
}

// busSocket finds the bus as libdbus does.
func busSocket(user bool, getenv func(string) string) (string, error) {
	address, fallback := getenv("DBUS_SYSTEM_BUS_ADDRESS"), "/run/dbus/system_bus_socket"
	if user {
		address, fallback = getenv("DBUS_SESSION_BUS_ADDRESS"), ""
		if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
			fallback = dir + "/bus"
		}
	}
	for one := range strings.SplitSeq(address, ";") {
		if options, ok := strings.CutPrefix(one, "unix:"); ok {
			for option := range strings.SplitSeq(options, ",") {
				if path, ok := strings.CutPrefix(option, "path="); ok {
					return path, nil
				}
			}
		}
	}
	if fallback == "" {
		return "", needsSystemd(errors.New("no DBUS_SESSION_BUS_ADDRESS or XDG_RUNTIME_DIR leads to the user's bus"))
	}
	return fallback, nil
}

// open connects the socket. Package net would bring its poller, which a command
// that lives for milliseconds can do without.
func (c *Conn) open(socket string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerTime})
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	c.fd = fd
	return nil
}

// Close ends the connection.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// authenticate lets the bus take the ids that the kernel attests: named by us
// they would be wrong in a user namespace.
func (c *Conn) authenticate() error {
	if err := c.write([]byte("\x00AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")); err != nil {
		return err
	}
	for _, want := range []string{"DATA", "OK "} {
		line, err := c.line()
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, want) {
			return errdefs.As(errdefs.ErrPermission, fmt.Errorf("D-Bus authentication: %q", line))
		}
	}
	return nil
}

func (c *Conn) line() (string, error) {
	var line []byte
	for !strings.HasSuffix(string(line), "\r\n") {
		b, err := c.read(1)
		if err != nil {
			return "", err
		}
		if line = append(line, b[0]); len(line) > 1024 {
			return "", errMalformed
		}
	}
	return strings.TrimSuffix(string(line), "\r\n"), nil
}

// hello introduces us and has the manager tell of jobs that end.
func (c *Conn) hello() error {
	bus := func(member, signature string, body func(*encoder)) error {
		_, err := c.call(&call{busName, busPath, busName, member, signature, body})
		return err
	}
	if err := bus("Hello", "", nil); err != nil {
		return err
	}
	err := bus("AddMatch", "s", func(e *encoder) {
		e.string("type='signal',sender='" + managerName + "',path='" + managerPath + "',interface='" + managerFace + "',member='JobRemoved'")
	})
	if err != nil {
		return err
	}
	_, err = c.manage("Subscribe", "", nil)
	return err
}

// manage calls a method of the manager.
func (c *Conn) manage(member, signature string, body func(*encoder)) (*message, error) {
	return c.call(&call{managerName, managerPath, managerFace, member, signature, body})
}

// call waits for the answer, and notes jobs that end meanwhile.
func (c *Conn) call(m *call) (*message, error) {
	c.serial++
	if err := c.write(m.encode(c.serial)); err != nil {
		return nil, fmt.Errorf("call %s: %w", m.member, err)
	}
	for {
		reply, err := c.receive()
		if err != nil {
			return nil, fmt.Errorf("call %s: %w", m.member, err)
		}
		switch {
		case reply.replyTo != c.serial:
		case reply.kind == methodReturn:
			return reply, nil
		case reply.kind == errorReply:
			return nil, fmt.Errorf("call %s: %w", m.member, answered(reply))
		}
	}
}

// waitJob blocks until the job has ended and returns its result.
func (c *Conn) waitJob(job string) (string, error) {
	for {
		if result, ok := c.jobs[job]; ok {
			delete(c.jobs, job)
			return result, nil
		}
		if _, err := c.receive(); err != nil {
			return "", fmt.Errorf("wait for job %s: %w", job, err)
		}
	}
}

// receive reads the next message.
func (c *Conn) receive() (*message, error) {
	b, err := c.read(16)
	if err != nil {
		return nil, err
	}
	size, err := messageSize(b)
	if err != nil {
		return nil, err
	}
	rest, err := c.read(size - 16)
	if err != nil {
		return nil, err
	}
	m, err := decodeMessage(append(b, rest...))
	if err != nil {
		return nil, err
	}
	if m.kind == signal && m.member == "JobRemoved" {
		m.body.uint32()
		job := m.body.string()
		m.body.string()
		c.jobs[job] = m.body.string()
		err = m.body.err
	}
	return m, err
}

func (c *Conn) read(n int) ([]byte, error) {
	buf := make([]byte, 0, n)
	for len(buf) < n {
		got, err := unix.Read(c.fd, buf[len(buf):n])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return nil, errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("systemd has not answered for %d s", answerTime))
		case err != nil:
			return nil, err
		case got == 0:
			return nil, errdefs.As(errdefs.ErrUnavailable, errors.New("the bus closed the connection"))
		}
		buf = buf[:len(buf)+got]
	}
	return buf, nil
}

func (c *Conn) write(b []byte) error {
	for len(b) > 0 {
		n, err := unix.SendmsgN(c.fd, b, nil, nil, unix.MSG_NOSIGNAL)
		if err != nil && err != unix.EINTR {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}

// answered is the error that a peer sent: its name gives the class.
func answered(m *message) error {
	text := m.body.string()
	if m.body.err != nil {
		text = ""
	}
	err := errors.New(strings.TrimSuffix(text, "."))
	switch name := m.errorName; {
	case strings.HasSuffix(name, ".NoSuchUnit"):
		return errdefs.As(errdefs.ErrNotFound, err)
	case strings.HasSuffix(name, ".UnitExists"):
		return errdefs.As(errdefs.ErrConflict, err)
	case strings.HasSuffix(name, ".AccessDenied"), strings.HasSuffix(name, ".InteractiveAuthorizationRequired"):
		return errdefs.As(errdefs.ErrPermission, err)
	case strings.HasSuffix(name, ".ServiceUnknown"), strings.HasSuffix(name, ".NameHasNoOwner"):
		return needsSystemd(err)
	case strings.HasSuffix(name, ".InvalidArgs"), strings.HasSuffix(name, ".PropertyReadOnly"), strings.HasSuffix(name, ".UnknownProperty"):
		return errdefs.As(errdefs.ErrInvalid, err)
	default:
		return fmt.Errorf("%s: %w", name, err)
	}
}
