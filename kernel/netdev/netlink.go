package netdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// conn is a route netlink socket (rtnetlink(7)). It speaks of the network
// namespace it was made in.
type conn struct {
	fd  int
	seq uint32
}

// message is one message of an answer.
type message struct {
	kind    uint16
	payload []byte
}

func open() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// With it the kernel says in words what it does not like.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	return &conn{fd: fd}, nil
}

// openIn is open in another network namespace: a thread goes there and back.
func openIn(netns *os.File) (*conn, error) {
	type result struct {
		c   *conn
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // one that cannot come back ends with the goroutine
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- result{nil, fmt.Errorf("open own network namespace: %w", err)}
			return
		}
		defer unix.Close(home)
		if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- result{nil, fmt.Errorf("enter network namespace: %w", err)}
			return
		}
		c, err := open()
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- result{c, err}
	}()
	r := <-done
	return r.c, r.err
}

func (c *conn) close() { unix.Close(c.fd) }

// ask sends a request and collects the answer, up to the acknowledgement or the
// end of a dump.
func (c *conn) ask(kind, flags uint16, payload []byte) ([]message, error) {
	c.seq++
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(payload))
	b = append(b, payload...)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(b[8:], c.seq)
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send netlink request: %w", err)
	}
	var all []message
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive netlink answer: %w", err)
		}
		part, done, err := c.read(buf[:n])
		all = append(all, part...)
		if done || err != nil {
			return all, err
		}
	}
}

// read splits what came into messages; done says that it was the last.
func (c *conn) read(b []byte) (part []message, done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		kind, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return nil, true, errors.New("netlink answer: cut off")
		}
		body := b[unix.SizeofNlMsghdr:size]
		if binary.NativeEndian.Uint32(b[8:]) == c.seq {
			switch kind {
			case unix.NLMSG_DONE:
				return part, true, nil
			case unix.NLMSG_ERROR:
				return part, true, acknowledged(body, flags)
			default:
				part = append(part, message{kind, bytes.Clone(body)})
			}
		}
		b = b[min(align(size), len(b)):]
	}
	return part, false, nil
}

// acknowledged reads an acknowledgement: nil, or the error with the kernel's
// words for it.
func acknowledged(body []byte, flags uint16) error {
	const capped, hasText = 0x100, 0x200 // NLM_F_CAPPED, NLM_F_ACK_TLVS
	if len(body) < 4 {
		return errors.New("netlink answer: cut off")
	}
	code := int32(binary.NativeEndian.Uint32(body))
	if code == 0 {
		return nil
	}
	errno := unix.Errno(-code)
	rest := body[4:]
	if flags&hasText == 0 || len(rest) < unix.SizeofNlMsghdr {
		return errno
	}
	skip := unix.SizeofNlMsghdr
	if flags&capped == 0 {
		skip = align(int(binary.NativeEndian.Uint32(rest)))
	}
	if text := attributes(rest[min(skip, len(rest)):])[unix.NLMSGERR_ATTR_MSG]; len(text) > 1 {
		return fmt.Errorf("%w (%s)", errno, bytes.TrimRight(text, "\x00"))
	}
	return errno
}

func align(n int) int { return (n + 3) &^ 3 }

// attributes reads a list of attributes (struct rtattr).
func attributes(b []byte) map[uint16][]byte {
	all := map[uint16][]byte{}
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		all[binary.NativeEndian.Uint16(b[2:])&^0xc000] = b[unix.SizeofRtAttr:size] // without NLA_F_NESTED, NLA_F_NET_BYTEORDER
		b = b[min(align(size), len(b)):]
	}
	return all
}

func addAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
