#include "textflag.h"

// An init: the first process of a container whose command wants one. A complete
// program, as the interpreter is. Who executes it has blocked all signals, has
// started the command, and has put the command's process id into the event
// counter that is descriptor 62 (InitFile).
//
//	R12 process id of the command
//	SP  +0 the counter  +8 all signals  +16 wait status  +24 this program's name
TEXT ·initProgram(SB), NOSPLIT|NOFRAME, $0-0
	SUBQ $64, SP

	// R12 = the counter's value
	XORL AX, AX
	MOVL $62, DI
	MOVQ SP, SI
	MOVL $8, DX
	SYSCALL
	CMPQ AX, $8
	JNE  lost
	MOVQ 0(SP), R12
	MOVL $3, AX
	MOVL $62, DI
	SYSCALL

	// prctl(PR_SET_NAME, "berth-init")
	MOVQ $0x6e692d6874726562, AX
	MOVQ AX, 24(SP)
	MOVQ $0x7469, AX
	MOVQ AX, 32(SP)
	MOVL $157, AX
	MOVL $15, DI
	LEAQ 24(SP), SI
	SYSCALL

	MOVQ $-1, AX
	MOVQ AX, 8(SP)

	// AX = rt_sigtimedwait(all, NULL, NULL, 8)
await:
	MOVL $128, AX
	LEAQ 8(SP), DI
	XORL SI, SI
	XORL DX, DX
	MOVL $8, R10
	SYSCALL
	CMPQ AX, $17
	JEQ  reap
	CMPQ AX, $0
	JLE  await

	// SIGTTIN and SIGTTOU are about this process's use of the terminal.
	CMPQ AX, $21
	JEQ  await
	CMPQ AX, $22
	JEQ  await

	// kill(command, signal)
	MOVQ AX, SI
	MOVQ R12, DI
	MOVL $62, AX
	SYSCALL
	JMP  await

	// wait4(-1, &status, WNOHANG, NULL) until nobody is left to be reaped
reap:
	MOVL $61, AX
	MOVQ $-1, DI
	LEAQ 16(SP), SI
	MOVL $1, DX
	XORL R10, R10
	SYSCALL
	CMPQ AX, R12
	JEQ  ended
	CMPQ AX, $0
	JGT  reap
	JMP  await

	// The command's exit code, or 128 and the signal that killed it.
ended:
	MOVL 16(SP), DI
	MOVL DI, AX
	ANDL $0x7f, AX
	JNZ  killed
	SHRL $8, DI
	ANDL $0xff, DI
	JMP  exit

killed:
	LEAL 128(AX), DI
	JMP  exit

lost:
	MOVL $255, DI

exit:
	MOVL $231, AX
	SYSCALL
	UD2

	// endOfInterpreter
	QUAD $0x444e452d54525042
	RET

// func initAddr() uintptr
TEXT ·initAddr(SB), NOSPLIT, $0-8
	LEAQ ·initProgram(SB), AX
	MOVQ AX, ret+0(FP)
	RET
