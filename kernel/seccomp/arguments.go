package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Layout of struct seccomp_data (include/uapi/linux/seccomp.h) on little-endian
// machines, the only ones this package knows.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

// test is one comparison of an argument, reduced to the width of the ABI.
type test struct {
	arg         uint32
	op          specs.LinuxSeccompOperator
	mask, value uint64 // the argument is compared after masking
}

// clause is a list of tests that must all hold, and what is returned then.
type clause struct {
	ret   uint32
	tests []test
}

// makeTest reduces an OCI condition. As in libseccomp, values lose their upper
// half on a 32-bit ABI, and what a masked comparison masks out of the argument is
// masked out of the value too.
func makeTest(arg *specs.LinuxSeccompArg, wide bool) test {
	t := test{arg: uint32(arg.Index), op: arg.Op, mask: ^uint64(0), value: arg.Value}
	if arg.Op == specs.OpMaskedEqual {
		t.op, t.mask, t.value = specs.OpEqualTo, arg.Value, arg.ValueTwo
	}
	if !wide {
		t.mask &= 0xffffffff
	}
	t.value &= t.mask
	return t
}

// void reports whether the test compares nothing because nothing is left by the mask.
func (t *test) void() bool { return t.mask == 0 }

// holds reports whether the masked argument v passes.
func (t *test) holds(v uint64) bool {
	switch t.op {
	case specs.OpNotEqual:
		return v != t.value
	case specs.OpLessThan:
		return v < t.value
	case specs.OpLessEqual:
		return v <= t.value
	case specs.OpGreaterEqual:
		return v >= t.value
	case specs.OpGreaterThan:
		return v > t.value
	}
	return v == t.value
}

// checks emits the clauses in order, the first that holds deciding, and
// otherwise if none does.
func (c *compiler) checks(clauses []clause, otherwise label) label {
	next := otherwise
	for end := len(clauses); end > 0; {
		last := &clauses[end-1]
		start := end - 1
		if len(last.tests) != 1 {
			next = c.conjunction(last, next)
			end = start
			continue
		}
		// A run of single tests of the same argument is one search.
		for start > 0 && joinable(&clauses[start-1], last) {
			start--
		}
		next = c.alternatives(clauses[start:end], next)
		end = start
	}
	return next
}

func joinable(a, b *clause) bool {
	return len(a.tests) == 1 && a.tests[0].arg == b.tests[0].arg && a.tests[0].mask == b.tests[0].mask
}

// conjunction emits a clause of several tests.
func (c *compiler) conjunction(cl *clause, fail label) label {
	to := c.asm.ret(cl.ret)
	for i := len(cl.tests) - 1; i >= 0; i-- {
		t := &cl.tests[i]
		c.ranges = append(c.ranges[:0], 0)
		c.addBounds(t)
		pass := to
		to = c.searchArg(t, func(v uint64) label {
			if t.holds(v) {
				return pass
			}
			return fail
		})
	}
	return to
}

// alternatives emits clauses of one test each, all of the same argument.
func (c *compiler) alternatives(clauses []clause, fail label) label {
	c.ranges = append(c.ranges[:0], 0)
	for i := range clauses {
		c.addBounds(&clauses[i].tests[0])
	}
	return c.searchArg(&clauses[0].tests[0], func(v uint64) label {
		for i := range clauses {
			if clauses[i].tests[0].holds(v) {
				return c.asm.ret(clauses[i].ret)
			}
		}
		return fail
	})
}

// addBounds notes the values at which the outcome of t can change.
func (c *compiler) addBounds(t *test) {
	c.ranges = append(c.ranges, t.value)
	// The next value the mask lets through, 0 after the last.
	if next := ((t.value | ^t.mask) + 1) & t.mask; next > t.value {
		c.ranges = append(c.ranges, next)
	}
}

// searchArg emits the search for t's masked argument among the values in
// c.ranges; between two of them the outcome is that of the lower one. A 64-bit
// argument is a search for its upper half with searches for its lower half as
// leaves.
func (c *compiler) searchArg(t *test, outcome func(uint64) label) label {
	slices.Sort(c.ranges)
	c.ranges = slices.Compact(c.ranges)
	low := offsetArgs + 8*t.arg
	lowMask, highMask := uint32(t.mask), uint32(t.mask>>32)
	c.high = c.high[:0]
	var to label // the outcome of the value before c.ranges[i]
	for i := 0; i < len(c.ranges); {
		half := uint32(c.ranges[i] >> 32)
		c.low = c.low[:0]
		if uint32(c.ranges[i]) != 0 {
			c.low = append(c.low, segment{0, to})
		}
		for ; i < len(c.ranges) && uint32(c.ranges[i]>>32) == half; i++ {
			to = outcome(c.ranges[i])
			c.low = c.asm.appendSegment(c.low, uint32(c.ranges[i]), to)
		}
		c.high = c.asm.appendSegment(c.high, half, c.asm.search(low, lowMask, c.low))
		if highMask == 0 {
			break // no argument has an upper half
		}
		if half < ^uint32(0) && (i == len(c.ranges) || uint32(c.ranges[i]>>32) != half+1) {
			c.high = c.asm.appendSegment(c.high, half+1, to)
		}
	}
	return c.asm.search(low+4, highMask, c.high)
}
