package seccomp

import "golang.org/x/sys/unix"

// label is the place of an instruction, counted from the program's end.
type label int32

// assembler builds a program from its last instruction to its first. BPF jumps
// go forward only, so every target exists when the jump to it is made and its
// distance is known; nothing is patched afterwards.
type assembler struct {
	code []unix.SockFilter // reversed
	rets []retAt
	// starts is scratch space of tree.
	starts []int32
}

// retAt is the most recent, hence nearest, instruction that returns value.
type retAt struct {
	value uint32
	at    label
}

const (
	opLoad = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opSub  = unix.BPF_ALU | unix.BPF_SUB | unix.BPF_K
	opJump = unix.BPF_JMP | unix.BPF_JA
	opJeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opJge  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	opRet  = unix.BPF_RET | unix.BPF_K
)

// maxJump is how far a conditional jump reaches: its offsets have 8 bits.
const maxJump = 255

func (a *assembler) push(i unix.SockFilter) label {
	a.code = append(a.code, i)
	return label(len(a.code) - 1)
}

// distance is what a jump pushed next has to skip to get to l.
func (a *assembler) distance(l label) int { return len(a.code) - 1 - int(l) }

// ret returns the place of an instruction that returns value.
func (a *assembler) ret(value uint32) label {
	for i := range a.rets {
		if a.rets[i].value == value {
			return a.rets[i].at
		}
	}
	l := a.push(unix.SockFilter{Code: opRet, K: value})
	a.rets = append(a.rets, retAt{value, l})
	return l
}

// same reports whether going to x or to y makes no difference.
func (a *assembler) same(x, y label) bool {
	return x == y || a.code[x].Code == opRet && a.code[y].Code == opRet && a.code[x].K == a.code[y].K
}

// reach returns a place equivalent to l that a conditional jump reaches even
// when one more instruction gets between: l itself, a return of the same value,
// or an unconditional jump, whose offset has 32 bits.
func (a *assembler) reach(l label) label {
	const slack = 1
	if a.distance(l)+slack <= maxJump {
		return l
	}
	target := a.code[l]
	if target.Code != opRet {
		return a.push(unix.SockFilter{Code: opJump, K: uint32(a.distance(l))})
	}
	for i := range a.rets {
		if r := &a.rets[i]; r.value == target.K {
			if a.distance(r.at)+slack > maxJump {
				r.at = a.push(target)
			}
			return r.at
		}
	}
	return a.push(target)
}

// branch compares the accumulator with k and goes to yes or no.
func (a *assembler) branch(op uint16, k uint32, yes, no label) label {
	if a.same(yes, no) {
		return yes
	}
	yes = a.reach(yes)
	no = a.reach(no)
	return a.push(unix.SockFilter{
		Code: op, K: k,
		Jt: uint8(a.distance(yes)), Jf: uint8(a.distance(no)),
	})
}

// segment is a range of accumulator values, from start to the next segment's,
// with the place to go for them.
type segment struct {
	start uint32
	to    label
}

// appendSegment adds a range, joining it with the one before where they go to
// the same place.
func (a *assembler) appendSegment(s []segment, start uint32, to label) []segment {
	if n := len(s); n > 0 && a.same(s[n-1].to, to) {
		return s
	}
	return append(s, segment{start, to})
}

// maxHoles bounds the exceptions tested one after the other in a leaf of tree.
const maxHoles = 3

// tree emits a balanced binary search for the accumulator among the segments,
// the first of which starts at 0. A range interrupted by single values is one
// leaf: testing a value for equality costs one instruction, cutting the range
// around it two.
func (a *assembler) tree(s []segment) label {
	starts := a.starts[:0]
	for i := 0; i < len(s); {
		starts = append(starts, int32(i))
		end := i + 1
		for end+1 < len(s) && end-i < 2*maxHoles && s[end+1].start == s[end].start+1 && a.same(s[end+1].to, s[i].to) {
			end += 2
		}
		i = end
	}
	starts = append(starts, int32(len(s)))
	a.starts = starts
	return a.subtree(s, starts)
}

// subtree emits the leaves s[starts[i]:starts[i+1]].
func (a *assembler) subtree(s []segment, starts []int32) label {
	leaves := len(starts) - 1
	if leaves == 1 {
		to := s[starts[0]].to
		for hole := starts[1] - 2; hole > starts[0]; hole -= 2 {
			to = a.branch(opJeq, s[hole].start, s[hole].to, to)
		}
		return to
	}
	mid := leaves / 2
	high := a.subtree(s, starts[mid:])
	low := a.subtree(s, starts[:mid+1])
	return a.branch(opJge, s[starts[mid]].start, high, low)
}

// search emits a load of the word of seccomp_data at offset, reduced by mask,
// and the search for it among the segments.
func (a *assembler) search(offset, mask uint32, s []segment) label {
	if len(s) == 1 {
		return s[0].to
	}
	// The segments differ, so the search ends with its root on top and the
	// instructions pushed here fall through to it.
	a.tree(s)
	if mask != ^uint32(0) {
		a.push(unix.SockFilter{Code: opAnd, K: mask})
	}
	return a.push(unix.SockFilter{Code: opLoad, K: offset})
}

// program returns the instructions in order.
func (a *assembler) program() []unix.SockFilter {
	for i, j := 0, len(a.code)-1; i < j; i, j = i+1, j-1 {
		a.code[i], a.code[j] = a.code[j], a.code[i]
	}
	return a.code
}
