package program

import (
	"bytes"
	"unsafe"
)

// interpreter is the assembly in interpreter_*.s. It must not be called.
//
//lint:ignore U1000 the assembly needs the declaration
func interpreter()

// interpreterAddr returns the address of the interpreter's first instruction.
func interpreterAddr() uintptr

// endOfInterpreter follows the interpreter's last instruction in memory.
var endOfInterpreter = []byte("BPRT-END")

// maxInterpreter bounds the search for the end mark, bytes.
const maxInterpreter = 4096

// interpreterCode returns the interpreter's machine code, position independent
// and complete. It is this program's own text: read only.
func interpreterCode() []byte {
	text := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), interpreterAddr())), maxInterpreter)
	n := bytes.Index(text, endOfInterpreter)
	if n < 0 {
		panic("program: the interpreter has no end mark")
	}
	return text[:n]
}
