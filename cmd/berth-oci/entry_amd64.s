#include "textflag.h"

// The program's entry point, when the linker is told so (-E, see the Makefile):
// it adds GOMAXPROCS=1 to the environment and goes on to Go's own. A command
// of a few milliseconds gains nothing from running goroutines side by side; the
// threads, their wake-ups and the flushes between processors they cause take
// 0.9 ms of processor time. A GOMAXPROCS the caller gave comes first and
// counts; the keeper sets its own.
//
// SP points to the number of arguments, their addresses, a null pointer, the
// addresses of the environment, a null pointer, the auxiliary vector. All of it
// up to the second null pointer moves down by two words (SP stays a multiple
// of 16), which the setting fills twice.
TEXT berth_oci_entry(SB), NOSPLIT|NOFRAME, $0
	MOVQ SP, SI
	MOVQ (SI), AX
	LEAQ 16(SI)(AX*8), BX

end:
	MOVQ  (BX), CX
	ADDQ  $8, BX
	TESTQ CX, CX
	JNZ   end
	SUBQ  $8, BX

	LEAQ -16(SI), DI
	MOVQ DI, SP
	MOVQ BX, CX
	SUBQ SI, CX
	SHRQ $3, CX
	CLD
	REP; MOVSQ
	LEAQ berth_oci_setting<>(SB), AX
	MOVQ AX, -16(BX)
	MOVQ AX, -8(BX)
	JMP  _rt0_amd64_linux(SB)

DATA berth_oci_setting<>+0(SB)/8, $"GOMAXPRO"
DATA berth_oci_setting<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL berth_oci_setting<>(SB), RODATA, $16
