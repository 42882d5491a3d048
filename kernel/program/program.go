// Package program is a container's set-up as data: a flat list of system calls
// that a parent compiles in ordinary Go and a tiny interpreter executes in the
// new process. Nothing of Go runs in that process, and nothing of the host's
// binaries: the interpreter is a static executable of a few hundred bytes in a
// sealed memory file (see [Interpreter]).
//
// A program only moves forward: each call either goes on with the next one, or
// jumps ahead to a label on success, on a zero result, or on an errno it
// tolerates; at most it repeats itself ([Op.Retry]). Any other errno ends the process and is reported with the step's
// name (see [Report]).
package program

import (
	"fmt"
	"syscall"
)

// Program is a list of calls under construction together with the data they
// point to. The zero value is an empty program.
type Program struct {
	ops    []Op
	data   []byte
	relocs []uint32 // offsets in data of words to which the load address is added
	labels []int    // op index per label, -1 while unbound
	strs   map[string]uint64
	trace  bool // stamps are taken
	stamps int  // their offset in data
}

// Op is one system call. Build it with [Program.Call] and refine it with the
// methods below, which return the op itself.
type Op struct {
	// Step says what the call is for: "mount proc on /proc". Several ops in a
	// row may share one step.
	Step string
	Sys  Sys
	Args [6]Arg

	prog     *Program
	nargs    int
	store    *Arg
	onOK     Label
	onZero   Label
	tolerate [maxTolerated]tolerated
}

const maxTolerated = 4

type tolerated struct {
	errno syscall.Errno
	next  Label
}

// anyErrno makes an op tolerate every errno.
const anyErrno syscall.Errno = 0xffff

// Label is a place in the program that ops jump to; its zero value means "the
// next op". Make one with [Program.NewLabel], place it with [Program.Mark].
type Label int

type argKind uint8

const (
	argInt   argKind = iota // the value itself
	argData                 // address of the program's data at this offset
	argValue                // the 64-bit word stored in the data at this offset
)

// Arg is one argument of a call.
type Arg struct {
	kind argKind
	val  uint64
	text string // how explain prints it; "" = the number
}

// Int is a plain number.
func Int(v int) Arg { return Arg{val: uint64(v)} }

// Flag is a number with the name explain shows for it.
func Flag(v uint64, text string) Arg { return Arg{val: v, text: text} }

// Fd is a descriptor the process inherits under a number known in advance.
func Fd(n int, name string) Arg { return Arg{val: uint64(n), text: name} }

// Null is a null pointer.
var Null = Flag(0, "NULL")

// Str is the address of s as a NUL-terminated string. Equal strings share one
// place. s must not contain NUL; the kernel would see it cut.
func (p *Program) Str(s string) Arg {
	off, ok := p.strs[s]
	if !ok {
		if p.strs == nil {
			p.strs = make(map[string]uint64, 64)
		}
		off = uint64(len(p.data))
		p.data = append(append(p.data, s...), 0)
		p.strs[s] = off
	}
	return Arg{kind: argData, val: off, text: quoted}
}

// quoted as an Arg's text makes explain print the string at the address.
const quoted = "\x00str"

// Data is the address of a copy of b, aligned to 8 bytes. text is what explain
// shows.
func (p *Program) Data(b []byte, text string) Arg {
	p.align()
	off := uint64(len(p.data))
	p.data = append(p.data, b...)
	return Arg{kind: argData, val: off, text: text}
}

// Strings is the address of a NULL-terminated array of string addresses, as
// execve wants for arguments and environment.
func (p *Program) Strings(list []string, text string) Arg {
	offs := make([]uint64, len(list))
	for i, s := range list {
		offs[i] = uint64(len(p.data))
		p.data = append(append(p.data, s...), 0)
	}
	p.align()
	at := uint64(len(p.data))
	for _, off := range offs {
		p.pointer(off)
	}
	p.word(0)
	return Arg{kind: argData, val: at, text: text}
}

// Slot is a 64-bit variable that one op fills ([Op.Store]) and later ops use
// as an argument.
func (p *Program) Slot(name string) Arg {
	p.align()
	off := uint64(len(p.data))
	p.word(0)
	return Arg{kind: argValue, val: off, text: name}
}

// SlotIn is a slot that lies inside data made before, at the byte offset off:
// how a descriptor known only to the running process gets into a structure.
// The eight bytes there must belong to data.
func (p *Program) SlotIn(data Arg, off int, name string) Arg {
	return Arg{kind: argValue, val: data.val + uint64(off), text: name}
}

// AddressOf is the address of a slot, for calls that read or fill memory.
func (p *Program) AddressOf(slot Arg) Arg {
	return Arg{kind: argData, val: slot.val, text: "&" + slot.text}
}

// Pointers is the address of a structure of 64-bit words; the elements that
// are addresses (made by Data, Str, Strings) are adjusted to where the program
// is loaded.
func (p *Program) Pointers(text string, words ...Arg) Arg {
	p.align()
	at := uint64(len(p.data))
	for _, w := range words {
		if w.kind == argData {
			p.pointer(w.val)
		} else {
			p.word(w.val)
		}
	}
	return Arg{kind: argData, val: at, text: text}
}

func (p *Program) align() {
	for len(p.data)%8 != 0 {
		p.data = append(p.data, 0)
	}
}

func (p *Program) word(v uint64) {
	p.data = append(p.data, byte(v), byte(v>>8), byte(v>>16), byte(v>>24),
		byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
}

func (p *Program) pointer(off uint64) {
	p.relocs = append(p.relocs, uint32(len(p.data)))
	p.word(off)
}

// Call appends a system call with up to six arguments. The returned op is valid
// until the next Call.
func (p *Program) Call(step string, sys Sys, args ...Arg) *Op {
	if len(args) > 6 {
		panic("program: more than six arguments for " + sys.Name)
	}
	if p.ops == nil {
		p.ops = make([]Op, 0, 512) // a container's program fits: growing copies it
	}
	p.ops = append(p.ops, Op{Step: step, Sys: sys, prog: p, nargs: len(args)})
	op := &p.ops[len(p.ops)-1]
	copy(op.Args[:], args)
	return op
}

// Store puts the call's result into a slot when it succeeds.
func (o *Op) Store(slot Arg) *Op {
	o.store = &slot
	return o
}

// Then continues at l after success.
func (o *Op) Then(l Label) *Op {
	o.onOK = l
	return o
}

// ThenIfZero continues at l, storing nothing, when the result is 0: the child's
// side of a clone.
func (o *Op) ThenIfZero(l Label) *Op {
	o.onZero = l
	return o
}

// Tolerate makes the listed errnos no failure: the program goes on with the
// next op.
func (o *Op) Tolerate(errnos ...syscall.Errno) *Op {
	for _, e := range errnos {
		o.OnErrno(e, 0)
	}
	return o
}

// TolerateAll makes every errno no failure.
func (o *Op) TolerateAll() *Op { return o.OnErrno(anyErrno, 0) }

// OnAnyErrno continues at l on every errno not named before.
func (o *Op) OnAnyErrno(l Label) *Op { return o.OnErrno(anyErrno, l) }

// OnErrno continues at l when the call fails with errno. An op has room for
// four of these.
func (o *Op) OnErrno(errno syscall.Errno, l Label) *Op {
	for i := range o.tolerate {
		if o.tolerate[i].errno == 0 {
			o.tolerate[i] = tolerated{errno, l}
			return o
		}
	}
	panic(fmt.Sprintf("program: too many tolerated errors for %s (%s)", o.Sys.Name, o.Step))
}

// Retry repeats the call as long as it fails with errno: the one jump that is
// not forward, for calls that ask to be made again.
func (o *Op) Retry(errno syscall.Errno) *Op {
	l := o.prog.NewLabel()
	o.prog.labels[l-1] = len(o.prog.ops) - 1
	return o.OnErrno(errno, l)
}

// NewLabel makes a label that is not placed yet.
func (p *Program) NewLabel() Label {
	p.labels = append(p.labels, -1)
	return Label(len(p.labels))
}

// Mark places l before the next op.
func (p *Program) Mark(l Label) { p.labels[l-1] = len(p.ops) }

// Len is the number of ops.
func (p *Program) Len() int { return len(p.ops) }

// Op returns the op at index i, for reading.
func (p *Program) Op(i int) *Op { return &p.ops[i] }

// At is the program's data from the address a on, nil when a is no address:
// for reading a plan, and for tests that spoil one. It is valid until the next
// addition.
func (p *Program) At(a Arg) []byte {
	if a.kind != argData {
		return nil
	}
	return p.data[a.val:]
}

// Step names the step of op i; it is safe for any i.
func (p *Program) Step(i int) string {
	if i < 0 || i >= len(p.ops) {
		return fmt.Sprintf("step %d", i)
	}
	return p.ops[i].Step
}
