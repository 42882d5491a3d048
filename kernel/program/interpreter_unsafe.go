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

// initProgram is the assembly in init_*.s. It must not be called.
//
//lint:ignore U1000 the assembly needs the declaration
func initProgram()

// initAddr returns the address of the init's first instruction.
func initAddr() uintptr

// endOfInterpreter follows each program's last instruction in memory.
var endOfInterpreter = []byte("BPRT-END")

// maxInterpreter bounds the search for the end mark, bytes.
const maxInterpreter = 4096

// interpreterCode returns the interpreter's machine code, position independent
// and complete. It is this program's own text: read only.
func interpreterCode() []byte { return codeAt(interpreterAddr()) }

// initCode returns the init's machine code, in the same way.
func initCode() []byte { return codeAt(initAddr()) }

func codeAt(addr uintptr) []byte {
	text := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), addr)), maxInterpreter)
	n := bytes.Index(text, endOfInterpreter)
	if n < 0 {
		panic("program: assembly without an end mark")
	}
	return text[:n]
}
