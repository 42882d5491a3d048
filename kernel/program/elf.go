package program

import (
	"encoding/binary"
	"runtime"
)

// executable wraps position independent code into a static executable: an ELF
// header, one loadable segment (read, execute) and the mark that wants a
// stack that is not executable.
func executable(code []byte) []byte {
	const (
		base  = 0x400000
		ehdr  = 64
		phdr  = 56
		entry = ehdr + 2*phdr
	)
	b := make([]byte, entry, entry+len(code))
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01") // 64-bit, little-endian, version 1
	le.PutUint16(b[16:], 2)        // ET_EXEC
	le.PutUint16(b[18:], elfMachine())
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], base+entry)
	le.PutUint64(b[32:], ehdr) // program headers follow
	le.PutUint16(b[52:], ehdr)
	le.PutUint16(b[54:], phdr)
	le.PutUint16(b[56:], 2)
	size := uint64(entry + len(code))
	load := b[ehdr:]
	le.PutUint32(load[0:], 1) // PT_LOAD
	le.PutUint32(load[4:], 5) // R+X
	le.PutUint64(load[16:], base)
	le.PutUint64(load[24:], base)
	le.PutUint64(load[32:], size)
	le.PutUint64(load[40:], size)
	le.PutUint64(load[48:], 0x1000)
	stack := b[ehdr+phdr:]
	le.PutUint32(stack[0:], 0x6474e551) // PT_GNU_STACK
	le.PutUint32(stack[4:], 6)          // R+W
	le.PutUint64(stack[48:], 16)
	return append(b, code...)
}

// elfMachine is the e_machine value of this architecture (elf.h).
func elfMachine() uint16 {
	if runtime.GOARCH == "arm64" {
		return 183
	}
	return 62
}
