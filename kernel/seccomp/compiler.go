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

	// regularSlots is above the highest running number of every ABI, and of x32's own.
	regularSlots = 600
	slotCount    = regularSlots + armPrivateSlots
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

func (c *compiler) covers(m *machine) bool {
	return c.abis[m.low] || m.high != noABI && c.abis[m.high]
}

// section emits the search for a syscall number on one machine.
func (c *compiler) section(m *machine) label {
	c.numbers = c.numbers[:0]
	killed := c.asm.ret(unix.SECCOMP_RET_KILL_PROCESS)
	newer := killed
	if c.abis[m.low] {
		newer = c.number(m.low, 0)
	} else {
		c.numbers = c.asm.appendSegment(c.numbers, 0, killed)
	}
	switch {
	case m.high == noABI:
	case c.abis[m.high]:
		c.number(m.high, x32Bit)
	default:
		c.numbers = c.asm.appendSegment(c.numbers, x32Bit, killed)
		// -1 is how a debugger or a careless program says "no syscall"; the
		// kernel answers it like a number it does not know.
		c.numbers = c.asm.appendSegment(c.numbers, ^uint32(0), newer)
	}
	return c.asm.search(offsetNr, ^uint32(0), c.numbers)
}

// number appends the segments of one ABI, whose numbers start at base, and
// returns where numbers unknown to the profile go.
func (c *compiler) number(a abi, base uint32) label {
	clear(c.slots)
	c.links = c.links[:0]
	c.chains = c.chains[:0]
	c.newest = -1
	for i := range c.rules {
		c.apply(a, int32(i))
	}
	unnamed := c.asm.ret(c.defaultRet)
	newer := unnamed
	if c.newest >= 0 {
		newer = c.asm.ret(c.newerRet)
	}
	add := func(nr uint32, to label) { c.numbers = c.asm.appendSegment(c.numbers, base+nr, to) }
	for nr := uint32(0); nr < regularSlots; nr++ {
		switch s := &c.slots[nr]; {
		case s.state != slotUnnamed:
			add(nr, c.leaf(a, s))
		case int32(nr) <= c.newest || x32Own(a, int32(nr)):
			add(nr, unnamed)
		default:
			add(nr, newer)
		}
	}
	add(regularSlots, newer)
	if a != abiARM {
		return newer
	}
	for i := uint32(0); i < armPrivateSlots; i++ {
		to := unnamed
		if s := &c.slots[regularSlots+i]; s.state != slotUnnamed {
			to = c.leaf(a, s)
		}
		add(armPrivateFirst+i, to)
	}
	add(armPrivateFirst+armPrivateSlots, newer)
	return newer
}

// apply enters one rule of the profile into the slots of the ABI.
func (c *compiler) apply(a abi, index int32) {
	r := &c.rules[index]
	conditional := c.conditional(a, r)
	for _, row := range c.rows[r.row : r.row+r.rows] {
		s := &syscallTable[row]
		if nr := s.nr[a]; nr >= 0 {
			c.count(a, nr)
			if !r.redundant {
				c.enter(slotOf(nr), index, conditional)
			}
		}
		if a == abiI386 && s.mux != 0 && !r.redundant {
			c.applyMultiplexed(s.mux, index, conditional)
		}
	}
}

func slotOf(nr int32) int32 {
	if nr >= armPrivateFirst {
		return regularSlots + nr - armPrivateFirst
	}
	return nr
}

func x32Own(a abi, nr int32) bool { return a == abiX32 && nr >= x32OwnFirst && nr < x32OwnEnd }

// count remembers the newest call of the running numbering.
func (c *compiler) count(a abi, nr int32) {
	if nr > c.newest && nr < armPrivateFirst && !x32Own(a, nr) {
		c.newest = nr
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
	s := &c.slots[nrSocketcall]
	if mux&muxIPC != 0 {
		s = &c.slots[nrIPC]
	}
	if s.state != slotDecided {
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

// multiplexedTest is the comparison of the first argument of socketcall(2) or
// ipc(2) with a subcall. The latter's upper half is a version number
// (ipc/syscall.c).
func multiplexedTest(mux uint8) test {
	if mux&muxIPC != 0 {
		return test{op: specs.OpEqualTo, mask: 0xffff, value: uint64(mux &^ muxIPC)}
	}
	return test{op: specs.OpEqualTo, mask: 0xffffffff, value: uint64(mux)}
}
