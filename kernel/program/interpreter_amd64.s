#include "textflag.h"

// The interpreter: a complete static program without a stack frame, data or
// relocations. It is never called in this process; its bytes are copied into
// an executable of their own (interpreter_unsafe.go). The layout it reads is
// that of encode.go.
//
//	BX  load address of the image     R13 first op
//	R12 current op                    SP  six words for the arguments
TEXT ·interpreter(SB), NOSPLIT|NOFRAME, $0-0
	SUBQ $64, SP

	// size = lseek(3, 0, SEEK_END)
	MOVL $8, AX
	MOVL $3, DI
	XORL SI, SI
	MOVL $2, DX
	SYSCALL
	CMPQ AX, $0
	JLE  fail0
	MOVQ AX, SI

	// BX = mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_SHARED, 3, 0)
	MOVL $9, AX
	XORL DI, DI
	MOVL $3, DX
	MOVL $1, R10
	MOVL $3, R8
	XORL R9, R9
	SYSCALL
	CMPQ AX, $-4095
	JCC  fail0
	MOVQ AX, BX
	MOVL $3, AX
	MOVL $3, DI
	SYSCALL

	// Adjust the addresses in the data.
	MOVQ 32(BX), SI
	ADDQ BX, SI
	MOVQ 40(BX), CX

relocate:
	TESTQ CX, CX
	JZ    relocated
	MOVL  (SI), DX
	ADDQ  BX, (BX)(DX*1)
	ADDQ  $4, SI
	DECQ  CX
	JMP   relocate

relocated:
	LEAQ 128(BX), R13
	MOVQ R13, R12

next:
	// An exit_group is not noted: it cannot fail, and the process that ends
	// here may share the report with a clone of it that goes on.
	CMPL 0(R12), $231
	JEQ  begun
	MOVQ R12, CX
	SUBQ R13, CX
	MOVQ CX, 16(BX)

begun:
	MOVL 4(R12), BP
	XORL CX, CX

argument:
	MOVQ 8(R12)(CX*8), DX
	MOVL BP, SI
	ANDL $3, SI
	JZ   ready
	ADDQ BX, DX
	CMPL SI, $1
	JEQ  ready
	MOVQ (DX), DX

ready:
	MOVQ DX, (SP)(CX*8)
	SHRL $2, BP
	INCL CX
	CMPL CX, $6
	JNE  argument

	MOVL 0(R12), AX
	MOVQ 0(SP), DI
	MOVQ 8(SP), SI
	MOVQ 16(SP), DX
	MOVQ 24(SP), R10
	MOVQ 32(SP), R8
	MOVQ 40(SP), R9
	SYSCALL
	CMPQ AX, $-4095
	JCC  failed

	TESTQ AX, AX
	JNZ   store
	MOVL  96(R12), CX
	TESTL CX, CX
	JNZ   jump

store:
	MOVL  56(R12), CX
	TESTL CX, CX
	JZ    stored
	MOVQ  AX, (BX)(CX*1)

stored:
	MOVL 60(R12), CX

	// CX is the offset of the next op, 0 for the following one.
follow:
	TESTL CX, CX
	JNZ   jump
	ADDQ  $128, R12
	JMP   next

jump:
	LEAQ (R13)(CX*1), R12
	JMP  next

failed:
	NEGQ AX
	LEAQ 64(R12), SI
	MOVL $4, DI

tolerate:
	MOVL  0(SI), DX
	MOVL  4(SI), CX
	TESTL DX, DX
	JZ    fatal
	CMPL  DX, AX
	JEQ   follow
	CMPL  DX, $0xffff
	JEQ   follow
	ADDQ  $8, SI
	DECL  DI
	JNZ   tolerate

fatal:
	MOVQ AX, 24(BX)
	MOVQ $1, 8(BX)

fail0:
	MOVL $231, AX
	MOVL $255, DI
	SYSCALL
	MOVL $60, AX
	MOVL $255, DI
	SYSCALL
	UD2

	// endOfInterpreter
	QUAD $0x444e452d54525042
	RET

// func interpreterAddr() uintptr
TEXT ·interpreterAddr(SB), NOSPLIT, $0-8
	LEAQ ·interpreter(SB), AX
	MOVQ AX, ret+0(FP)
	RET
