#include "textflag.h"

// An init: the first process of a container whose command wants one. A complete
// program, as the interpreter is. Who executes it has blocked all signals, has
// started the command, and has put the command's process id into the event
// counter that is descriptor 62 (InitFile).
//
//	R19 process id of the command
//	RSP +0 the counter  +8 all signals  +16 wait status  +24 this program's name
TEXT ·initProgram(SB), NOSPLIT|NOFRAME, $0-0
	SUB $64, RSP

	// R19 = the counter's value
	MOVD $63, R8
	MOVD $62, R0
	MOVD RSP, R1
	MOVD $8, R2
	SVC  $0
	CMP  $8, R0
	BNE  lost
	MOVD RSP, R9
	MOVD (R9), R19
	MOVD $57, R8
	MOVD $62, R0
	SVC  $0

	// prctl(PR_SET_NAME, "berth-init")
	MOVD RSP, R9
	MOVD $0x6e692d6874726562, R10
	MOVD R10, 24(R9)
	MOVD $0x7469, R10
	MOVD R10, 32(R9)
	MOVD $167, R8
	MOVD $15, R0
	ADD  $24, R9, R1
	SVC  $0

	MOVD RSP, R9
	MOVD $-1, R10
	MOVD R10, 8(R9)

	// R0 = rt_sigtimedwait(all, NULL, NULL, 8)
await:
	MOVD RSP, R9
	MOVD $137, R8
	ADD  $8, R9, R0
	MOVD $0, R1
	MOVD $0, R2
	MOVD $8, R3
	SVC  $0
	CMP  $17, R0
	BEQ  reap
	CMP  $0, R0
	BLE  await

	// SIGTTIN and SIGTTOU are about this process's use of the terminal.
	CMP $21, R0
	BEQ await
	CMP $22, R0
	BEQ await

	// kill(command, signal)
	MOVD R0, R1
	MOVD R19, R0
	MOVD $129, R8
	SVC  $0
	B    await

	// wait4(-1, &status, WNOHANG, NULL) until nobody is left to be reaped
reap:
	MOVD RSP, R9
	MOVD $260, R8
	MOVD $-1, R0
	ADD  $16, R9, R1
	MOVD $1, R2
	MOVD $0, R3
	SVC  $0
	CMP  R19, R0
	BEQ  ended
	CMP  $0, R0
	BGT  reap
	B    await

	// The command's exit code, or 128 and the signal that killed it.
ended:
	MOVD  RSP, R9
	MOVWU 16(R9), R10
	AND   $0x7f, R10, R11
	CBNZ  R11, killed
	LSR   $8, R10, R0
	AND   $0xff, R0, R0
	B     exit

killed:
	ADD $128, R11, R0
	B   exit

lost:
	MOVD $255, R0

exit:
	MOVD $94, R8
	SVC  $0
	UNDEF

	// endOfInterpreter
	WORD $0x54525042
	WORD $0x444e452d
	RET

// func initAddr() uintptr
TEXT ·initAddr(SB), NOSPLIT, $0-8
	MOVD $·initProgram(SB), R0
	MOVD R0, ret+0(FP)
	RET
