#include "textflag.h"

// The interpreter: a complete static program without a stack frame, data or
// relocations. It is never called in this process; its bytes are copied into
// an executable of their own (interpreter_unsafe.go). The layout it reads is
// that of encode.go.
//
//	R19 load address of the image     R20 first op     R21 current op
TEXT ·interpreter(SB), NOSPLIT|NOFRAME, $0-0
	// size = lseek(3, 0, SEEK_END)
	MOVD $62, R8
	MOVD $3, R0
	MOVD $0, R1
	MOVD $2, R2
	SVC  $0
	CMP  $0, R0
	BLE  fail0
	MOVD R0, R1

	// R19 = mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_SHARED, 3, 0)
	MOVD $222, R8
	MOVD $0, R0
	MOVD $3, R2
	MOVD $1, R3
	MOVD $3, R4
	MOVD $0, R5
	SVC  $0
	CMN  $4095, R0
	BCS  fail0
	MOVD R0, R19
	MOVD $57, R8
	MOVD $3, R0
	SVC  $0

	// Adjust the addresses in the data.
	MOVD 32(R19), R9
	ADD  R19, R9, R9
	MOVD 40(R19), R10

relocate:
	CBZ   R10, relocated
	MOVWU (R9), R11
	ADD   R19, R11, R11
	MOVD  (R11), R12
	ADD   R19, R12, R12
	MOVD  R12, (R11)
	ADD   $4, R9, R9
	SUB   $1, R10, R10
	B     relocate

relocated:
	ADD  $128, R19, R20
	MOVD R20, R21

next:
	// An exit_group is not noted: it cannot fail, and the process that ends
	// here may share the report with a clone of it that goes on.
	MOVWU (R21), R8
	CMP   $94, R8
	BEQ   begun
	SUB   R20, R21, R9
	MOVD  R9, 16(R19)

begun:
	MOVWU 4(R21), R22
	MOVD  $0, R10
	ADD   $8, R21, R13
	SUB   $64, RSP, R14

argument:
	MOVD (R13), R11
	AND  $3, R22, R12
	CBZ  R12, ready
	ADD  R19, R11, R11
	CMP  $1, R12
	BEQ  ready
	MOVD (R11), R11

ready:
	MOVD R11, (R14)
	LSR  $2, R22, R22
	ADD  $8, R13, R13
	ADD  $8, R14, R14
	ADD  $1, R10, R10
	CMP  $6, R10
	BNE  argument

	MOVWU (R21), R8
	SUB   $64, RSP, R14
	MOVD  0(R14), R0
	MOVD  8(R14), R1
	MOVD  16(R14), R2
	MOVD  24(R14), R3
	MOVD  32(R14), R4
	MOVD  40(R14), R5
	SVC   $0
	CMN   $4095, R0
	BCS   failed

	CBNZ  R0, store
	MOVWU 96(R21), R9
	CBNZ  R9, jump

store:
	MOVWU 56(R21), R9
	CBZ   R9, stored
	ADD   R19, R9, R9
	MOVD  R0, (R9)

stored:
	MOVWU 60(R21), R9

	// R9 is the offset of the next op, 0 for the following one.
follow:
	CBNZ R9, jump
	ADD  $128, R21, R21
	B    next

jump:
	ADD R20, R9, R21
	B   next

failed:
	NEG  R0, R0
	ADD  $64, R21, R13
	MOVD $4, R10

tolerate:
	MOVWU 0(R13), R11
	MOVWU 4(R13), R9
	CBZ   R11, fatal
	CMP   R0, R11
	BEQ   follow
	MOVD  $0xffff, R12
	CMP   R12, R11
	BEQ   follow
	ADD   $8, R13, R13
	SUB   $1, R10, R10
	CBNZ  R10, tolerate

fatal:
	MOVD R0, 24(R19)
	MOVD $1, R9
	MOVD R9, 8(R19)

fail0:
	MOVD $94, R8
	MOVD $255, R0
	SVC  $0
	MOVD $93, R8
	MOVD $255, R0
	SVC  $0
	WORD $0

	// endOfInterpreter
	WORD $0x54525042
	WORD $0x444e452d
	RET

// func interpreterAddr() uintptr
TEXT ·interpreterAddr(SB), NOSPLIT, $0-8
	MOVD $·interpreter(SB), R0
	MOVD R0, ret+0(FP)
	RET
