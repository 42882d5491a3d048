// Package criu speaks to CRIU, the program that saves processes to files and makes
// them again from these (criu(8)), by its remote procedure calls: protocol buffers
// over a socket, to a "criu swrk" of our own. The few messages and types of field
// that are needed are written out here; they are those of CRIU's images/rpc.proto.
package criu

import "fmt"

// message is a protocol buffer under construction (protobuf.dev, "Encoding").
type message []byte

const (
	wireVarint = 0
	wireFixed8 = 1
	wireBytes  = 2
	wireFixed4 = 5
)

func (m *message) varint(v uint64) {
	for ; v >= 0x80; v >>= 7 {
		*m = append(*m, byte(v)|0x80)
	}
	*m = append(*m, byte(v))
}

func (m *message) number(field int, v int64) {
	m.varint(uint64(field)<<3 | wireVarint)
	m.varint(uint64(v)) // negative ones have ten bytes
}

// flag sets a field that is false when absent.
func (m *message) flag(field int, v bool) {
	if v {
		m.number(field, 1)
	}
}

func (m *message) bytes(field int, b []byte) {
	m.varint(uint64(field)<<3 | wireBytes)
	m.varint(uint64(len(b)))
	*m = append(*m, b...)
}

// text sets a field that is empty when absent.
func (m *message) text(field int, s string) {
	if s != "" {
		m.bytes(field, []byte(s))
	}
}

// pair is a message of two strings in its fields 1 and 2.
func (m *message) pair(field int, a, b string) {
	var p message
	p.bytes(1, []byte(a))
	p.bytes(2, []byte(b))
	m.bytes(field, p)
}

// fields calls f for each field of a message: with its number, or its bytes.
func fields(b []byte, f func(field int, number uint64, bytes []byte)) error {
	for len(b) > 0 {
		key, n := uvarint(b)
		if n == 0 {
			return errBad
		}
		b = b[n:]
		var v uint64
		size := 0
		switch key & 7 {
		case wireVarint:
			if v, n = uvarint(b); n == 0 {
				return errBad
			}
			b = b[n:]
			f(int(key>>3), v, nil)
			continue
		case wireBytes:
			if v, n = uvarint(b); n == 0 || v > uint64(len(b)-n) {
				return errBad
			}
			b = b[n:]
			size = int(v)
		case wireFixed8:
			size = 8
		case wireFixed4:
			size = 4
		default:
			return errBad
		}
		if size > len(b) {
			return errBad
		}
		f(int(key>>3), 0, b[:size])
		b = b[size:]
	}
	return nil
}

var errBad = fmt.Errorf("criu: an answer that is no message")

// uvarint reads a number and how many bytes it has, 0 when it is cut off or too
// long.
func uvarint(b []byte) (v uint64, n int) {
	for i := 0; i < len(b) && i < 10; i++ {
		v |= uint64(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
