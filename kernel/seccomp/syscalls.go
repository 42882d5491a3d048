package seccomp

// syscallRow is one known syscall; see syscallTable.
type syscallRow struct {
	name string
	nr   [abiCount]int32
	mux  uint8
}

// muxIPC marks, in syscallRow.mux, a subcall of ipc(2) rather than of
// socketcall(2).
const muxIPC = 0x80

// Numbers of i386's multiplexers (arch/x86/entry/syscalls/syscall_32.tbl).
const (
	nrSocketcall = 102
	nrIPC        = 117
)

// lookup returns the index of name in syscallTable, or -1. Profiles list most
// names in order, so the rows after the previous hit are tried first.
func lookup(name string, previous int) int {
	for i := previous + 1; i < previous+4 && i < len(syscallTable); i++ {
		if syscallTable[i].name == name {
			return i
		}
	}
	lo, hi := 0, len(syscallTable)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if syscallTable[mid].name < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(syscallTable) && syscallTable[lo].name == name {
		return lo
	}
	return -1
}
