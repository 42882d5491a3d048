package program

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Explain writes the program as text, one line for each op: its index, its
// step, the call with symbolic arguments, where the result goes and what
// happens on an errno that is no failure.
func (p *Program) Explain(w io.Writer) error {
	width := 0
	for i := range p.ops {
		width = max(width, len(p.ops[i].Step))
	}
	for i := range p.ops {
		if _, err := fmt.Fprintf(w, "%3d  %-*s  %s\n", i, width, p.ops[i].Step, p.line(&p.ops[i])); err != nil {
			return err
		}
	}
	return nil
}

// Steps are the names of the program's steps in order, each once however many
// calls in a row it takes.
func (p *Program) Steps() []string {
	var steps []string
	for i := range p.ops {
		if n := len(steps); n == 0 || steps[n-1] != p.ops[i].Step {
			steps = append(steps, p.ops[i].Step)
		}
	}
	return steps
}

func (p *Program) line(op *Op) string {
	var b strings.Builder
	b.WriteString(op.Sys.Name + "(")
	for i, a := range op.Args[:op.nargs] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.argText(a))
	}
	b.WriteString(")")
	if op.store != nil {
		b.WriteString(" = " + op.store.text)
	}
	if op.onOK != 0 {
		fmt.Fprintf(&b, "; then %d", p.labels[op.onOK-1])
	}
	if op.onZero != 0 {
		fmt.Fprintf(&b, "; if 0 then %d", p.labels[op.onZero-1])
	}
	for _, t := range op.tolerate {
		if t.errno != 0 {
			b.WriteString("; " + p.toleratedText(t))
		}
	}
	return b.String()
}

func (p *Program) toleratedText(t tolerated) string {
	name := "any error"
	if t.errno != anyErrno {
		name = errnoName(t.errno)
	}
	if t.next == 0 {
		return name + " is fine"
	}
	return fmt.Sprintf("%s: %d", name, p.labels[t.next-1])
}

func errnoName(e syscall.Errno) string {
	if n := unix.ErrnoName(e); n != "" {
		return n
	}
	return "errno " + strconv.Itoa(int(e))
}

func (p *Program) argText(a Arg) string {
	switch {
	case a.kind == argData && a.text == quoted:
		s := p.data[a.val:]
		return strconv.Quote(string(s[:bytes.IndexByte(s, 0)]))
	case a.text != "":
		return a.text
	case a.kind == argData:
		return "data+" + strconv.FormatUint(a.val, 10)
	default:
		return strconv.FormatInt(int64(a.val), 10)
	}
}
