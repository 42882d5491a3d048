#include "textflag.h"

// noteSignal is a signal handler in the kernel's calling convention: it writes
// the signal's number to the descriptor signalPipe. It touches nothing of Go's.
TEXT ·noteSignal(SB), NOSPLIT|NOFRAME, $0
	SUBQ $24, SP
	MOVQ DI, 8(SP)
	MOVL $1, AX
	MOVL ·signalPipe(SB), DI
	LEAQ 8(SP), SI
	MOVL $1, DX
	SYSCALL
	ADDQ $24, SP
	RET

// endOfSignal is where a handler returns to (sigreturn(2)).
TEXT ·endOfSignal(SB), NOSPLIT|NOFRAME, $0
	MOVL $15, AX
	SYSCALL
	INT  $3

// func signalHandler() (handler, restorer uintptr)
TEXT ·signalHandler(SB), NOSPLIT, $0-16
	LEAQ ·noteSignal(SB), AX
	MOVQ AX, handler+0(FP)
	LEAQ ·endOfSignal(SB), AX
	MOVQ AX, restorer+8(FP)
	RET
