package keeper

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

const (
	// protocolMajor changes when old clients or keepers can no longer be
	// understood, protocolMinor when something is added.
	protocolMajor = 1
	protocolMinor = 0

	headerSize = 8
	// maxBody bounds a message. The kernel takes at most 2 MiB or so of
	// arguments and environment (execve(2)), JSON escapes a byte with six.
	maxBody = 16 << 20
	// maxFrameFiles bounds the descriptors of a message.
	maxFrameFiles = 8
)

// versionError is a peer that speaks another major version.
type versionError struct{ peer int }

func (e *versionError) Error() string {
	return fmt.Sprintf("peer speaks version %d of the keeper protocol, this program %d", e.peer, protocolMajor)
}

func (e *versionError) Unwrap() error { return errdefs.ErrUnsupported }

// writeFrame sends one message. The files are duplicated by the kernel; the
// caller keeps its own.
func writeFrame(conn *net.UnixConn, message any, files ...*os.File) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(body) > maxBody {
		return fmt.Errorf("message of %d bytes, the limit is %d: %w", len(body), maxBody, errdefs.ErrInvalid)
	}
	if len(files) > maxFrameFiles {
		return fmt.Errorf("%d files in a message, the limit is %d: %w", len(files), maxFrameFiles, errdefs.ErrInvalid)
	}
	frame := make([]byte, headerSize, headerSize+len(body))
	frame[0], frame[1], frame[2], frame[3] = 'B', 'K', protocolMajor, byte(len(files))
	binary.BigEndian.PutUint32(frame[4:], uint32(len(body)))
	if len(files) == 0 {
		_, err = conn.Write(append(frame, body...))
		return err
	}
	if err := sendWithFiles(conn, frame, files); err != nil {
		return err
	}
	_, err = conn.Write(body)
	return err
}

func sendWithFiles(conn *net.UnixConn, header []byte, files []*os.File) error {
	fds := make([]int, len(files))
	return withFds(files, fds, func() error {
		_, _, err := conn.WriteMsgUnix(header, unix.UnixRights(fds...), nil)
		return err
	})
}

// withFds calls f with fds filled in and every file kept open. It does not use
// [os.File.Fd], which would make the file blocking for its other users.
func withFds(files []*os.File, fds []int, f func() error) error {
	if len(files) == 0 {
		return f()
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		fds[0] = int(fd)
		inner = withFds(files[1:], fds[1:], f)
	})
	return errors.Join(err, inner)
}

// readFrame receives one message. The files become the caller's; on error there
// are none. A peer that closed before the first byte is [io.EOF].
func readFrame(conn *net.UnixConn) (body []byte, files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	var header [headerSize]byte
	if files, err = readHeader(conn, header[:]); err != nil {
		return nil, files, err
	}
	if header[0] != 'B' || header[1] != 'K' {
		return nil, files, fmt.Errorf("message begins with %q: %w", header[:2], errdefs.ErrInvalid)
	}
	if header[2] != protocolMajor {
		return nil, files, &versionError{peer: int(header[2])}
	}
	if len(files) != int(header[3]) {
		return nil, files, fmt.Errorf("message with %d files announces %d: %w", len(files), header[3], errdefs.ErrInvalid)
	}
	size := binary.BigEndian.Uint32(header[4:])
	if size > maxBody {
		return nil, files, fmt.Errorf("message of %d bytes, the limit is %d: %w", size, maxBody, errdefs.ErrInvalid)
	}
	// The buffer grows with what arrives: a header alone allocates nothing big.
	var buf bytes.Buffer
	buf.Grow(int(min(size, 64<<10)))
	if _, err := io.CopyN(&buf, conn, int64(size)); err != nil {
		return nil, files, fmt.Errorf("read message: %w", unexpectedEOF(err))
	}
	return buf.Bytes(), files, nil
}

// readHeader fills header. The descriptors of a message travel with its first
// byte; the kernel never merges them into an earlier read (unix(7)).
func readHeader(conn *net.UnixConn, header []byte) (files []*os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFrameFiles))
	for got := 0; got < len(header); {
		n, oobn, flags, _, err := conn.ReadMsgUnix(header[got:], oob)
		if err == nil && n == 0 {
			err = io.EOF
		}
		if err != nil {
			if got > 0 {
				err = unexpectedEOF(err)
			}
			return files, err
		}
		more, err := receivedFiles(oob[:oobn])
		files = append(files, more...)
		if err != nil {
			return files, err
		}
		if flags&unix.MSG_CTRUNC != 0 {
			return files, fmt.Errorf("descriptors of a message were cut off: %w", errdefs.ErrInvalid)
		}
		got += n
	}
	return files, nil
}

func receivedFiles(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials or the like, which carry nothing to close
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
