#include "textflag.h"

// The program's entry point: see entry_amd64.s.
TEXT berth_oci_entry(SB), NOSPLIT|NOFRAME, $0
	// prctl(PR_SET_TIMERSLACK, 20 ms)
	MOVD $167, R8
	MOVD $29, R0
	MOVD $20000000, R1
	SVC  $0

	MOVD ·memProfileRate(SB), R4
	MOVD ZR, (R4)

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
