package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"

	"golang.org/x/sys/unix"
)

// errNotOffered: the archive has to be sent. The engine is another one, an older one,
// or far away, or the file is.
var errNotOffered = errors.New("the engine takes no open file")

// imageLoadFile gives the engine the open archive itself (SCM_RIGHTS, unix(7)): it
// then reads of it what it needs, and nothing is sent.
func (c *Client) imageLoadFile(ctx context.Context, archive *os.File, q url.Values) (io.ReadCloser, error) {
	if c.Host.Network != "unix" || !local(archive) {
		return nil, errNotOffered
	}
	p, err := c.Send(ctx, Request{Method: "POST", Path: "/berth/images/load", Query: q, Upgrade: true})
	if err != nil {
		return nil, err
	}
	if _, err := p.Answer(); unknownRoute(err) {
		return nil, errNotOffered
	} else if err != nil {
		return nil, err
	}
	// The connection is ours now; what comes over it is an answer once more.
	p.req.Upgrade = false
	p.stop = context.AfterFunc(ctx, func() { p.conn.Close() })
	if err := p.sendFile(archive); err != nil {
		return nil, p.failed(err)
	}
	resp, err := p.Answer()
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// sendFile sends a descriptor, and a byte for it to travel with.
func (p *Pending) sendFile(f *os.File) error {
	conn, ok := p.conn.Conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("send file over a %T", p.conn.Conn)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) {
		_, _, sent = conn.WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil)
	}); err != nil {
		return err
	}
	return sent
}

// local tells whether a file is on this host's disks or in its memory. A read from
// elsewhere, or from a file system that is a program, may take for ever; then the
// engine had better wait for this process than for the kernel.
func local(f *os.File) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &fs) != nil {
		return false
	}
	switch int64(fs.Type) { // its type differs by architecture
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.F2FS_SUPER_MAGIC,
		unix.OVERLAYFS_SUPER_MAGIC, unix.SQUASHFS_MAGIC, unix.ISOFS_SUPER_MAGIC, unix.EROFS_SUPER_MAGIC_V1, 0x2fc12fc1, 0xca451a4e: // ZFS, bcachefs
		return true
	}
	return false
}

// unknownRoute tells that the engine does not know what it was asked for. Once it has
// taken the file the same status is its word on the archive.
func unknownRoute(err error) bool {
	var refused *Error
	return errors.As(err, &refused) && (refused.Status == 404 || refused.Status == 405 || refused.Status == 501)
}
