package program

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Trace makes the process note the time before each op (CLOCK_MONOTONIC). It
// must be called before Encode, and costs a call for each op.
func (p *Program) Trace() { p.trace = true }

// Stamp is the time at which an op began, on the clock of [Now].
type Stamp struct {
	Op int
	At time.Duration
}

// Now is the present time on the clock that stamps are taken from.
func Now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

// stampSize is the size of a struct timespec.
const stampSize = 16

// makeStamps reserves the room for the times.
func (p *Program) makeStamps() {
	p.align()
	p.stamps = len(p.data)
	p.data = append(p.data, make([]byte, stampSize*len(p.ops))...)
}

// encodeStamp writes the call that comes before op i.
func (p *Program) encodeStamp(b []byte, i int, dataAt uint64) {
	le := binary.LittleEndian
	le.PutUint32(b[opNr:], ClockGettime.Nr)
	le.PutUint32(b[opKinds:], uint32(argData)<<2)
	le.PutUint64(b[opArgs:], unix.CLOCK_MONOTONIC)
	le.PutUint64(b[opArgs+8:], dataAt+uint64(p.stamps+stampSize*i))
	le.PutUint32(b[opTolerate:], uint32(anyErrno))
}

// ReadStamps reads when each op that was reached began, from the image of this
// program, which was encoded with [Program.Trace].
func (p *Program) ReadStamps(image *os.File) ([]Stamp, error) {
	b := make([]byte, stampSize*len(p.ops))
	at := int64(headerSize + len(p.ops)*p.stride() + p.stamps)
	if _, err := image.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("read program file: %w", err)
	}
	var list []Stamp
	for i := range p.ops {
		sec := binary.LittleEndian.Uint64(b[stampSize*i:])
		nsec := binary.LittleEndian.Uint64(b[stampSize*i+8:])
		if sec|nsec != 0 {
			list = append(list, Stamp{i, time.Duration(sec)*time.Second + time.Duration(nsec)})
		}
	}
	return list, nil
}
