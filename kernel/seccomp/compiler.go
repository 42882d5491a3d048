package seccomp

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// compiler turns a resolved profile into a program. The program loads the
// architecture, chooses a section by it, and there searches for the number;
// argument checks are leaves of that search.
type compiler struct {
	*profile
	asm assembler

	// State of the ABI at hand.
	slots  []slot
	links  []link
	newest int32 // highest number the profile names in the running numbering, -1 for none
	chains []chain

	// Scratch space, reused to keep compiling cheap.
	numbers   []segment
	low, high []segment
	ranges    []uint64
	clauses   []clause
	tests     []test
}

// slot is what the profile says about one syscall number.
type slot struct {
	state       uint8
	first, last int32 // of its links, when conditional
	ret         uint32
}

const (
	slotUnnamed     = iota
	slotDecided     // ret, whatever the arguments are
	slotConditional // the clauses of its links, then the default action
)

// link is one conditional rule of a syscall.
type link struct {
	rule int32
	mux  uint8 // instead of the rule's own conditions: it is this multiplexed subcall
	next int32
}

// chain is the code of a list of links.
type chain struct {
	first int32
	at    label
}

const (
	end = -1 // of a list of links

	// regularSlots is above the highest running number of every ABI. The slots
	// from there on are for x32's own numbers and ARM's private ones.
	regularSlots = x32OwnFirst
	slotCount    = x32OwnEnd
)

func (c *compiler) compile() []unix.SockFilter {
	c.reserve()
	killed := c.asm.ret(unix.SECCOMP_RET_KILL_PROCESS)
	choice := killed
	var sections [len(machines)]label
	// The machine written last is nearest to the start; x86-64 comes first.
	for i := len(machines) - 1; i >= 0; i-- {
		if m := &machines[i]; c.covers(m) {
			sections[i] = c.section(m)
		}
	}
	for i := len(machines) - 1; i >= 0; i-- {
		if m := &machines[i]; c.covers(m) {
			choice = c.asm.branch(opJeq, m.audit, sections[i], choice)
		}
	}
	c.asm.push(unix.SockFilter{Code: opLoad, K: offsetArch})
	return c.asm.program()
}

// reserve makes room for what a usual profile needs.
func (c *compiler) reserve() {
	c.asm.code = make([]unix.SockFilter, 0, 512)
	c.asm.rets = make([]retAt, 0, 8)
	c.asm.starts = make([]int32, 0, 128)
	c.slots = make([]slot, slotCount)
	c.links = make([]link, 0, 64)
	c.chains = make([]chain, 0, 8)
	c.numbers = make([]segment, 0, 256)
	c.low = make([]segment, 0, 64)
	c.high = make([]segment, 0, 16)
	c.ranges = make([]uint64, 0, 128)
	c.clauses = make([]clause, 0, 64)
	c.tests = make([]test, 0, 64)
}

// covers reports whether the profile says anything about a machine.
func (c *compiler) covers(m *machine) bool {
	return c.abis[m.abi] || m.abi == abiX86_64 && c.abis[abiX32]
}

// section emits the search for a syscall number on one machine.
func (c *compiler) section(m *machine) label {
	clear(c.slots)
	c.links = c.links[:0]
	c.chains = c.chains[:0]
	c.newest = -1
	for i := range c.rules {
		c.apply(m.abi, int32(i))
	}
	unnamed := c.asm.ret(c.defaultRet)
	newer := unnamed
	if c.newest >= 0 {
		newer = c.asm.ret(c.newerRet)
	}
	c.numbers = c.numbers[:0]
	for nr := int32(0); nr < regularSlots; nr++ {
		switch s := &c.slots[nr]; {
		case s.state != slotUnnamed:
			c.number(uint32(nr), c.leaf(m.abi, s))
		case nr <= c.newest:
			c.number(uint32(nr), unnamed)
		default:
			c.number(uint32(nr), newer)
		}
	}
	c.number(regularSlots, newer)
	switch m.abi {
	case abiX86_64:
		return c.sectionX86(unnamed, newer)
	case abiARM:
		c.apart(m.abi, armPrivateFirst, armPrivateSlots, unnamed, newer)
	}
	return c.asm.search(offsetNr, ^uint32(0), c.numbers)
}

// number appends a segment of the search for a number.
func (c *compiler) number(nr uint32, to label) {
	c.numbers = c.asm.appendSegment(c.numbers, nr, to)
}

// apart appends the segments of a range apart from the running numbering.
func (c *compiler) apart(a abi, first, count uint32, unnamed, newer label) {
	for i := range count {
		to := unnamed
		if s := &c.slots[regularSlots+i]; s.state != slotUnnamed {
			to = c.leaf(a, s)
		}
		c.number(first+i, to)
	}
	c.number(first+count, newer)
}

// sectionX86 emits the search among x86-64's numbers, in c.numbers, behind one that tells
// them from x32's. An x32 number means the same call as on x86-64, except for
// those from 512 on, so it continues in the other search.
func (c *compiler) sectionX86(unnamed, newer label) label {
	killed := c.asm.ret(unix.SECCOMP_RET_KILL_PROCESS)
	common := c.asm.tree(c.numbers)
	c.numbers = append(c.numbers[:0], segment{0, killed})
	if c.abis[abiX86_64] {
		c.numbers[0].to = common
	}
	if !c.abis[abiX32] {
		c.number(x32Bit, killed)
		// -1 is how a debugger or a careless program says "no syscall"; the
		// kernel answers it like a number it does not know.
		c.number(^uint32(0), newer)
		return c.asm.search(offsetNr, ^uint32(0), c.numbers)
	}
	low := c.numbers[0].to
	c.numbers = append(c.numbers[:0], segment{0, common})
	c.apart(abiX86_64, x32OwnFirst, x32OwnEnd-x32OwnFirst, unnamed, newer)
	x32 := c.numbers[0].to
	if len(c.numbers) > 1 {
		c.asm.tree(c.numbers)
		x32 = c.asm.push(unix.SockFilter{Code: opSub, K: x32Bit})
	}
	c.numbers = append(c.numbers[:0], segment{0, low})
	c.number(x32Bit, x32)
	return c.asm.search(offsetNr, ^uint32(0), c.numbers)
}

// apply enters one rule of the profile into the slots of the ABI.
func (c *compiler) apply(a abi, index int32) {
	r := &c.rules[index]
	conditional := c.conditional(a, r)
	for _, row := range c.rows[r.row : r.row+r.rows] {
		s := &syscallTable[row]
		nr := s.nr[a]
		if nr < armPrivateFirst {
			c.newest = max(c.newest, nr)
		}
		if s.mux != 0 && a == abiI386 {
			c.newest = max(c.newest, multiplexer(s.mux))
		}
		if r.redundant {
			continue
		}
		if nr >= armPrivateFirst {
			nr += regularSlots - armPrivateFirst
		}
		if nr >= 0 {
			c.enter(nr, index, conditional)
		}
		if own := s.nr[abiX32]; own >= 0 && a == abiX86_64 {
			c.enter(own, index, conditional)
		}
		if s.mux != 0 && a == abiI386 {
			c.applyMultiplexed(s.mux, index, conditional)
		}
	}
}

// conditional reports whether the rule depends on arguments. Conditions whose
// mask is empty are none, as in libseccomp.
func (c *compiler) conditional(a abi, r *rule) bool {
	void := 0
	for i := range r.args {
		if t := makeTest(&r.args[i], a.wide()); t.void() {
			void++
		}
	}
	if r.each {
		return void == 0
	}
	return void < len(r.args)
}

// enter adds a rule to a slot. A rule without conditions decides for good, before
// or after conditional ones; of several such the first does.
func (c *compiler) enter(slotIndex, rule int32, conditional bool) {
	s := &c.slots[slotIndex]
	switch {
	case s.state == slotDecided:
	case conditional:
		c.link(s, link{rule: rule})
	default:
		*s = slot{state: slotDecided, ret: c.rules[rule].ret}
	}
}

func (c *compiler) link(s *slot, l link) {
	l.next = end
	c.links = append(c.links, l)
	at := int32(len(c.links) - 1)
	if s.state == slotConditional {
		c.links[s.last].next = at
	} else {
		s.state, s.first = slotConditional, at
	}
	s.last = at
}

// applyMultiplexed enters a rule for the same call made through socketcall or ipc.
// There the arguments lie in memory, out of the filter's sight: a rule with
// conditions applies to every such call if it restricts, and to none if it permits.
func (c *compiler) applyMultiplexed(mux uint8, rule int32, conditional bool) {
	if conditional && !stricter(c.rules[rule].ret, c.defaultRet) {
		return
	}
	if s := &c.slots[multiplexer(mux)]; s.state != slotDecided {
		c.link(s, link{rule: rule, mux: mux})
	}
}

// stricter reports whether the kernel gives the action of x precedence over that
// of y: the lower value, as a signed number (kernel/seccomp.c, ACTION_ONLY).
func stricter(x, y uint32) bool {
	return int32(x&unix.SECCOMP_RET_ACTION_FULL) < int32(y&unix.SECCOMP_RET_ACTION_FULL)
}

// leaf returns the code of a named syscall.
func (c *compiler) leaf(a abi, s *slot) label {
	if s.state == slotDecided {
		return c.asm.ret(s.ret)
	}
	for i := range c.chains {
		if c.sameLinks(c.chains[i].first, s.first) {
			return c.chains[i].at
		}
	}
	c.clauses, c.tests = c.clauses[:0], c.tests[:0]
	for i := s.first; i != end; i = c.links[i].next {
		c.addClauses(a, &c.links[i])
	}
	at := c.checks(c.clauses, c.asm.ret(c.defaultRet))
	c.chains = append(c.chains, chain{s.first, at})
	return at
}

func (c *compiler) sameLinks(x, y int32) bool {
	for x != end && y != end {
		if c.links[x].rule != c.links[y].rule || c.links[x].mux != c.links[y].mux {
			return false
		}
		x, y = c.links[x].next, c.links[y].next
	}
	return x == y
}

// addClauses appends what a link says to c.clauses.
func (c *compiler) addClauses(a abi, l *link) {
	r := &c.rules[l.rule]
	if l.mux != 0 {
		c.clauses = append(c.clauses, clause{r.ret, c.keep(multiplexedTest(l.mux))})
		return
	}
	first := len(c.tests)
	for i := range r.args {
		t := makeTest(&r.args[i], a.wide())
		if t.void() {
			continue
		}
		if r.each {
			c.clauses = append(c.clauses, clause{r.ret, c.keep(t)})
			continue
		}
		c.tests = append(c.tests, t)
	}
	if !r.each {
		c.clauses = append(c.clauses, clause{r.ret, c.tests[first:]})
	}
}

// keep stores a test until the chain is emitted.
func (c *compiler) keep(t test) []test {
	c.tests = append(c.tests, t)
	return c.tests[len(c.tests)-1:]
}

// multiplexer is the number of the call that mux is a subcall of.
func multiplexer(mux uint8) int32 {
	if mux&muxIPC != 0 {
		return nrIPC
	}
	return nrSocketcall
}

// multiplexedTest is the comparison of the first argument of socketcall(2) or
// ipc(2) with a subcall. The latter's upper half is a version number
// (ipc/syscall.c).
func multiplexedTest(mux uint8) test {
	if mux&muxIPC != 0 {
		return test{op: specs.OpEqualTo, mask: 0xffff, value: uint64(mux &^ muxIPC)}
	}
	return test{op: specs.OpEqualTo, mask: 0xffffffff, value: uint64(mux)}
}
