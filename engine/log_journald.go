package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// journalSocket is where systemd-journald listens, systemd-journald.socket(8).
const journalSocket = "/run/systemd/journal/socket"

// The priorities of the two streams, syslog(3).
const (
	severityError = 3
	severityInfo  = 6
)

// journald sends entries to systemd-journald by its native protocol
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL), with the fields that Docker's
// driver of the same name gives.
type journald struct {
	path   string
	fields []byte // those every entry has
	conn   *net.UnixConn
	order  uint64
}

func newJournald(rec *record, path string) (logSender, error) {
	tag, err := sentTag(rec)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, f := range [][2]string{
		{"CONTAINER_ID", short(rec.ID)}, {"CONTAINER_ID_FULL", rec.ID}, {"CONTAINER_NAME", rec.Name},
		{"CONTAINER_TAG", tag}, {"SYSLOG_IDENTIFIER", tag}, {"IMAGE_NAME", rec.Config.Image},
		{"CONTAINER_LOG_EPOCH", newID()},
	} {
		appendField(&b, f[0], []byte(f[1]))
	}
	attrs := logAttributes(rec)
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		if name := journalName(k); name != "" {
			appendField(&b, name, []byte(attrs[k]))
		}
	}
	return &journald{path: firstNonEmpty(path, journalSocket), fields: b.Bytes()}, nil
}

// journalName makes a field's name of a label's: upper case letters, digits and
// underscores, the last not in front.
func journalName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return strings.TrimLeft(name, "_0123456789")
}

// appendField writes NAME=value, or the binary form for a value of several lines.
func appendField(b *bytes.Buffer, name string, value []byte) {
	b.WriteString(name)
	if !bytes.ContainsRune(value, '\n') {
		b.WriteByte('=')
		b.Write(value)
		b.WriteByte('\n')
		return
	}
	b.WriteByte('\n')
	var size [8]byte
	binary.LittleEndian.PutUint64(size[:], uint64(len(value)))
	b.Write(size[:])
	b.Write(value)
	b.WriteByte('\n')
}

func (j *journald) send(_ context.Context, e *logEntry) error {
	if j.conn == nil {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: j.path, Net: "unixgram"})
		if err != nil {
			return err
		}
		j.conn = conn
	}
	message := j.message(e)
	// The journal may take its time, but not for ever.
	j.conn.SetWriteDeadline(time.Now().Add(sendMost))
	_, err := j.conn.Write(message)
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		return j.sendFile(message)
	}
	return err
}

func (j *journald) message(e *logEntry) []byte {
	var b bytes.Buffer
	text, whole := bytes.CutSuffix(e.text, []byte{'\n'})
	appendField(&b, "MESSAGE", text)
	severity := severityInfo
	if e.stream == Stderr {
		severity = severityError
	}
	j.order++
	appendField(&b, "PRIORITY", strconv.AppendInt(nil, int64(severity), 10))
	appendField(&b, "SYSLOG_TIMESTAMP", e.at.UTC().AppendFormat(nil, time.RFC3339Nano))
	appendField(&b, "CONTAINER_LOG_ORDINAL", strconv.AppendUint(nil, j.order, 10))
	if !whole {
		appendField(&b, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
	}
	b.Write(j.fields)
	return b.Bytes()
}

// sendFile sends what is too big for a datagram in a sealed memory file.
func (j *journald) sendFile(message []byte) error {
	fd, err := unix.MemfdCreate("berth-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("make journal entry: %w", err)
	}
	f := os.NewFile(uintptr(fd), "berth-journal")
	defer f.Close()
	if _, err := f.Write(message); err != nil {
		return err
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	raw, err := j.conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Write(func(to uintptr) bool {
		inner = unix.Sendmsg(int(to), nil, unix.UnixRights(int(f.Fd())), nil, 0)
		return !errors.Is(inner, unix.EAGAIN)
	})
	return errors.Join(err, inner)
}

func (j *journald) close() {
	if j.conn != nil {
		j.conn.Close()
		j.conn = nil
	}
}
