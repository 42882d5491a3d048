#include "textflag.h"

// The program's entry point: see entry_amd64.s.
TEXT berth_oci_entry(SB), NOSPLIT|NOFRAME, $0
	// TimerSlack = prctl(PR_GET_TIMERSLACK)
	MOVD $167, R8
	MOVD $30, R0
	SVC  $0
	MOVD R0, ·TimerSlack(SB)

	// prctl(PR_SET_TIMERSLACK, 20 ms)
	MOVD $167, R8
	MOVD $29, R0
	MOVD $20000000, R1
	SVC  $0

	MOVD ·memProfileRate(SB), R4
	MOVD ZR, (R4)

	// prlimit64(0, RLIMIT_NOFILE, NULL, &fileLimit[0])
	MOVD $261, R8
	MOVD ZR, R0
	MOVD $7, R1
	MOVD ZR, R2
	MOVD $·fileLimit(SB), R3
	SVC  $0

	// prlimit64(0, RLIMIT_NOFILE, {3, hard}, NULL), not when it is lower already
	MOVD 0(R3), R4
	CMP  $3, R4
	BLS  limited
	ADD  $16, R3, R2
	MOVD 8(R3), R4
	MOVD R4, 8(R2)
	MOVD $3, R4
	MOVD R4, 0(R2)
	MOVD ZR, R0
	MOVD ZR, R3
	SVC  $0

limited:
	MOVD RSP, R1
	MOVD (R1), R2
	ADD  $16, R1, R3
	ADD  R2<<3, R3, R3

end:
	MOVD.P 8(R3), R4
	CBNZ   R4, end
	SUB    $8, R3

	SUB  $16, R1, R5
	MOVD R5, RSP

copy:
	MOVD.P 8(R1), R4
	MOVD.P R4, 8(R5)
	CMP    R1, R3
	BNE    copy
	MOVD   $berth_oci_setting<>(SB), R4
	MOVD   R4, -16(R3)
	MOVD   R4, -8(R3)
	B      _rt0_arm64_linux(SB)

DATA berth_oci_setting<>+0(SB)/8, $"GOMAXPRO"
DATA berth_oci_setting<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL berth_oci_setting<>(SB), RODATA, $16

// func restoreFileLimit()
TEXT ·restoreFileLimit(SB), NOSPLIT, $0-0
	MOVD $·fileLimit(SB), R2
	MOVD 16(R2), R4
	CBZ  R4, kept

	// prlimit64(0, RLIMIT_NOFILE, &fileLimit[0], NULL)
	MOVD $261, R8
	MOVD ZR, R0
	MOVD $7, R1
	MOVD ZR, R3
	SVC  $0

kept:
	RET
