#include "textflag.h"

// The program's entry point, when the linker is told so (-E, see the Makefile).
// It prepares the process for a life of a few milliseconds and goes on to Go's
// own entry point; liveLong (brief.go) takes it back.
//
//   - It adds GOMAXPROCS=1 to the environment: goroutines side by side would gain
//     nothing, and their threads, wake-ups and flushes between processors take
//     time. A GOMAXPROCS the caller gave comes first and counts.
//   - It lets timers be late: the runtime's monitor thread, which inherits this,
//     would wake every 70 µs, 80 times in a run, for 0.7 ms in all.
//   - It switches the memory profile off, which nobody reads: the runtime's first
//     allocation is always profiled, before a main could say no.
//   - It lets no file be opened, beyond the three standard ones, until the runtime
//     has started: that would look for the cgroup's limit of processors, which
//     does not matter with one, in /proc/self/mountinfo and three more files, and
//     for the size of huge pages. It takes that it cannot for "there is none".
//     restoreFileLimit lifts this.
//
// SP points to the number of arguments, their addresses, a null pointer, the
// addresses of the environment, a null pointer, the auxiliary vector. All of it
// up to the second null pointer moves down by two words (SP stays a multiple
// of 16), which the setting fills twice.
TEXT berth_oci_entry(SB), NOSPLIT|NOFRAME, $0
	// TimerSlack = prctl(PR_GET_TIMERSLACK)
	MOVL $157, AX
	MOVL $30, DI
	SYSCALL
	MOVQ AX, ·TimerSlack(SB)

	// prctl(PR_SET_TIMERSLACK, 20 ms)
	MOVL $157, AX
	MOVL $29, DI
	MOVL $20000000, SI
	SYSCALL

	MOVQ ·memProfileRate(SB), AX
	MOVQ $0, (AX)

	// prlimit64(0, RLIMIT_NOFILE, NULL, &fileLimit[0])
	MOVL $302, AX
	XORL DI, DI
	MOVL $7, SI
	XORL DX, DX
	LEAQ ·fileLimit(SB), R10
	SYSCALL

	// prlimit64(0, RLIMIT_NOFILE, {3, hard}, NULL), not when it is lower already
	CMPQ 0(R10), $3
	JLS  limited
	LEAQ 16(R10), DX
	MOVQ 8(R10), AX
	MOVQ AX, 8(DX)
	MOVQ $3, 0(DX)
	MOVL $302, AX
	XORL R10, R10
	SYSCALL

limited:
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

// func restoreFileLimit()
TEXT ·restoreFileLimit(SB), NOSPLIT, $0-0
	LEAQ ·fileLimit(SB), DX
	CMPQ 16(DX), $0
	JEQ  kept

	// prlimit64(0, RLIMIT_NOFILE, &fileLimit[0], NULL)
	MOVL $302, AX
	XORL DI, DI
	MOVL $7, SI
	XORL R10, R10
	SYSCALL

kept:
	RET
