package program

import (
	"encoding/binary"
	"fmt"
)

// The image a process runs: a header, the ops, the data, the list of words to
// adjust. All numbers are little-endian; offsets count from the start of the
// image. The interpreters (interpreter_*.s) read the same layout.
const (
	headerSize = 128
	opSize     = 128

	hdrState   = 8  // stateRunning or stateFailed
	hdrCurrent = 16 // byte offset, from the first op, of the op being executed
	hdrErrno   = 24 // errno of the failed op
	hdrRelocs  = 32 // offset of the relocation list (32-bit offsets)
	hdrNRelocs = 40 // its length
	hdrStride  = 48 // distance of the ops in bytes, for who reads the report
	hdrMagic   = 0

	imageMagic = 0x314d50_4854524542 // "BERTHPM1"

	opNr       = 0  // u32 system call number
	opKinds    = 4  // u32, two bits for each argument
	opArgs     = 8  // six u64
	opStore    = 56 // u32 offset of the slot for the result, 0 = none
	opOnOK     = 60 // u32 offset of the next op after success, 0 = the following
	opTolerate = 64 // four pairs of u32: errno, offset of the next op
	opOnZero   = 96 // u32 offset of the next op after a zero result, 0 = no such jump
)

const (
	stateRunning = 0
	stateFailed  = 1
)

// Encode lays the program out as the image the interpreter maps. It fails when
// a jump goes to an unplaced label, backwards, or past the end: a program
// always ends. (Op 0 cannot repeat itself: its offset means "the next".)
func (p *Program) Encode() ([]byte, error) {
	if len(p.ops) == 0 {
		return nil, fmt.Errorf("encode program: it is empty")
	}
	if p.trace {
		p.makeStamps()
	}
	dataAt := headerSize + len(p.ops)*p.stride()
	relocAt := (dataAt + len(p.data) + 7) &^ 7
	img := make([]byte, relocAt+4*len(p.relocs))
	le := binary.LittleEndian
	le.PutUint64(img[hdrMagic:], imageMagic)
	le.PutUint64(img[hdrRelocs:], uint64(relocAt))
	le.PutUint64(img[hdrNRelocs:], uint64(len(p.relocs)))
	le.PutUint64(img[hdrStride:], uint64(p.stride()))
	copy(img[dataAt:], p.data)
	for i, off := range p.relocs {
		at := dataAt + int(off)
		le.PutUint32(img[relocAt+4*i:], uint32(at))
		le.PutUint64(img[at:], le.Uint64(img[at:])+uint64(dataAt))
	}
	for i := range p.ops {
		b := img[headerSize+i*p.stride():]
		if p.trace {
			p.encodeStamp(b, i, uint64(dataAt))
			b = b[opSize:]
		}
		if err := p.encodeOp(b, i, uint64(dataAt)); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// stride is the distance from one op to the next in the image: with a trace each
// op comes after a call that takes the time.
func (p *Program) stride() int {
	if p.trace {
		return 2 * opSize
	}
	return opSize
}

func (p *Program) encodeOp(b []byte, i int, dataAt uint64) error {
	op := &p.ops[i]
	le := binary.LittleEndian
	le.PutUint32(b[opNr:], op.Sys.Nr)
	var kinds uint32
	for j, a := range op.Args {
		kinds |= uint32(a.kind) << (2 * j)
		v := a.val
		if a.kind != argInt {
			v += dataAt
		}
		le.PutUint64(b[opArgs+8*j:], v)
	}
	le.PutUint32(b[opKinds:], kinds)
	if op.store != nil {
		le.PutUint32(b[opStore:], uint32(op.store.val+dataAt))
	}
	for _, f := range []struct {
		at int
		l  Label
	}{{opOnOK, op.onOK}, {opOnZero, op.onZero}} {
		if err := p.putTarget(b[f.at:], i, f.l); err != nil {
			return err
		}
	}
	for j, t := range op.tolerate {
		le.PutUint32(b[opTolerate+8*j:], uint32(t.errno))
		if t.next != 0 && p.labels[t.next-1] == i { // Retry
			le.PutUint32(b[opTolerate+8*j+4:], uint32(i*p.stride()))
			continue
		}
		if err := p.putTarget(b[opTolerate+8*j+4:], i, t.next); err != nil {
			return err
		}
	}
	return nil
}

func (p *Program) putTarget(b []byte, from int, l Label) error {
	if l == 0 {
		return nil
	}
	to := p.labels[l-1]
	if to <= from || to >= len(p.ops) {
		return fmt.Errorf("encode program: %s (op %d) jumps to %d of %d", p.ops[from].Step, from, to, len(p.ops))
	}
	binary.LittleEndian.PutUint32(b, uint32(to*p.stride()))
	return nil
}
