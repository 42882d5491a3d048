package systemd

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The wire format: D-Bus specification, "Message Protocol". Only little-endian
// messages are spoken; a bus passes them on as its peers wrote them, and those
// are on this host.

// Types of messages.
const (
	methodCall   = 1
	methodReturn = 2
	errorReply   = 3
	signal       = 4
)

// Header fields.
const (
	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// maxMessage bounds what is read; nothing we ask for comes near.
const maxMessage = 1 << 20

// encoder builds a message. Alignment counts from the start of the buffer.
type encoder struct{ buf []byte }

func (e *encoder) align(n int) {
	for len(e.buf)%n != 0 {
		e.buf = append(e.buf, 0)
	}
}

func (e *encoder) byte(b byte) { e.buf = append(e.buf, b) }

func (e *encoder) uint32(n uint32) {
	e.align(4)
	e.buf = binary.LittleEndian.AppendUint32(e.buf, n)
}

func (e *encoder) uint64(n uint64) {
	e.align(8)
	e.buf = binary.LittleEndian.AppendUint64(e.buf, n)
}

func (e *encoder) bool(b bool) {
	var n uint32
	if b {
		n = 1
	}
	e.uint32(n)
}

// string writes a string or an object path.
func (e *encoder) string(s string) {
	e.uint32(uint32(len(s)))
	e.buf = append(append(e.buf, s...), 0)
}

func (e *encoder) signature(s string) {
	e.byte(byte(len(s)))
	e.buf = append(append(e.buf, s...), 0)
}

// array writes an array whose elements have that alignment.
func (e *encoder) array(alignment int, elements func()) {
	e.uint32(0)
	at := len(e.buf) - 4
	e.align(alignment)
	start := len(e.buf)
	elements()
	binary.LittleEndian.PutUint32(e.buf[at:], uint32(len(e.buf)-start))
}

// field writes one header field.
func (e *encoder) field(code byte, signature, value string) {
	e.align(8)
	e.byte(code)
	e.signature(signature)
	if signature == "g" {
		e.signature(value)
	} else {
		e.string(value)
	}
}

// call is a method to be called.
type call struct {
	destination, path, iface, member string
	signature                        string // of the body
	body                             func(*encoder)
}

func (c *call) encode(serial uint32) []byte {
	var body encoder
	if c.body != nil {
		c.body(&body)
	}
	e := encoder{buf: []byte{'l', methodCall, 0, 1}}
	e.uint32(uint32(len(body.buf)))
	e.uint32(serial)
	e.array(8, func() {
		e.field(fieldPath, "o", c.path)
		e.field(fieldDestination, "s", c.destination)
		e.field(fieldInterface, "s", c.iface)
		e.field(fieldMember, "s", c.member)
		if c.signature != "" {
			e.field(fieldSignature, "g", c.signature)
		}
	})
	e.align(8)
	return append(e.buf, body.buf...)
}

// message is what was received.
type message struct {
	kind              byte
	replyTo           uint32
	member, errorName string
	body              decoder
}

var errMalformed = errors.New("malformed D-Bus message")

// messageSize is the length of the message that begins with those 16 bytes.
func messageSize(head []byte) (int, error) {
	if head[0] != 'l' || head[3] != 1 {
		return 0, fmt.Errorf("%w: byte order %q, version %d", errMalformed, head[0], head[3])
	}
	body, fields := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[12:])
	if body > maxMessage || fields > maxMessage {
		return 0, fmt.Errorf("%w: %d bytes", errMalformed, uint64(body)+uint64(fields))
	}
	return 16 + int(fields+7)&^7 + int(body), nil
}

// decodeMessage reads a whole message.
func decodeMessage(b []byte) (*message, error) {
	m := &message{kind: b[1]}
	fields := int(binary.LittleEndian.Uint32(b[12:]))
	d := decoder{buf: b[:16+fields], at: 16}
	for d.at < len(d.buf) && d.err == nil {
		d.align(8)
		code, sig := d.byte(), d.signature()
		var text string
		var number uint32
		switch sig {
		case "s", "o":
			text = d.string()
		case "g":
			text = d.signature()
		case "u":
			number = d.uint32()
		default:
			return nil, fmt.Errorf("%w: header field of type %q", errMalformed, sig)
		}
		switch code {
		case fieldMember:
			m.member = text
		case fieldErrorName:
			m.errorName = text
		case fieldReplySerial:
			m.replyTo = number
		}
	}
	m.body = decoder{buf: b[16+(fields+7)&^7:]}
	return m, d.err
}

// decoder reads values; the first error stays, and what follows reads as zero.
type decoder struct {
	buf []byte
	at  int
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err == nil && (n < 0 || n > len(d.buf)-d.at) {
		d.err = errMalformed
	}
	if d.err != nil {
		return nil
	}
	b := d.buf[d.at : d.at+n]
	d.at += n
	return b
}

func (d *decoder) align(n int) { d.take((n - d.at%n) % n) }

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	d.align(4)
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// string reads a string or an object path.
func (d *decoder) string() string {
	s := string(d.take(int(d.uint32())))
	d.take(1)
	return s
}

func (d *decoder) signature() string {
	s := string(d.take(int(d.byte())))
	d.take(1)
	return s
}
