#include "textflag.h"

// noteSignal: see signal_amd64.s.
TEXT ·noteSignal(SB), NOSPLIT|NOFRAME, $0
	SUB  $16, RSP
	MOVD R0, 8(RSP)
	MOVD $64, R8
	MOVW ·signalPipe(SB), R0
	ADD  $8, RSP, R1
	MOVD $1, R2
	SVC  $0
	ADD  $16, RSP
	RET

TEXT ·endOfSignal(SB), NOSPLIT|NOFRAME, $0
	MOVD $139, R8
	SVC  $0
	BRK  $1

// func signalHandler() (handler, restorer uintptr)
TEXT ·signalHandler(SB), NOSPLIT, $0-16
	MOVD $·noteSignal(SB), R0
	MOVD R0, handler+0(FP)
	MOVD $·endOfSignal(SB), R0
	MOVD R0, restorer+8(FP)
	RET
