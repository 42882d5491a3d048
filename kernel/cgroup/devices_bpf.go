package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// instruction is one of struct bpf_insn, Documentation/bpf/standardization.
type instruction struct {
	code     uint8
	dst, src uint8
	off      int16
	imm      int32
}

// The registers of the device program. r1 is the context when it starts.
const (
	regResult  = 0
	regContext = 1
	regType    = 2
	regAccess  = 3
	regMajor   = 4
	regMinor   = 5
)

const (
	opLoadWord  = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMove      = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	opMoveConst = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_K
	opAndConst  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opShiftDown = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	opJumpNE    = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
	opJumpSet   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	opJump      = unix.BPF_JMP | unix.BPF_JA
	opExit      = unix.BPF_JMP | unix.BPF_EXIT
)

// bpf compiles the set to a BPF_PROG_TYPE_CGROUP_DEVICE program, which the kernel
// runs at each open and mknod: it returns 1 to allow. As in cgroup v1 an exception
// to "deny" must allow all of the access that is asked; one to "allow" denies when
// it has any of it.
func (s *deviceSet) bpf() []instruction {
	// struct bpf_cgroup_dev_ctx: u32 access_type (access << 16 | type), major, minor.
	p := []instruction{
		{code: opLoadWord, dst: regType, src: regContext, off: 0},
		{code: opMove, dst: regAccess, src: regType},
		{code: opAndConst, dst: regType, imm: 0xffff},
		{code: opShiftDown, dst: regAccess, imm: 16},
		{code: opLoadWord, dst: regMajor, src: regContext, off: 4},
		{code: opLoadWord, dst: regMinor, src: regContext, off: 8},
	}
	for _, d := range s.order {
		p = append(p, s.exceptionBPF(d)...)
	}
	return append(p, answer(s.allow)...)
}

// exceptionBPF is the block of one exception: a chain of tests that end beyond it.
func (s *deviceSet) exceptionBPF(d device) []instruction {
	kind, how := int32(unix.BPF_DEVCG_DEV_CHAR), s.exceptions[d]
	if d.kind == 'b' {
		kind = unix.BPF_DEVCG_DEV_BLOCK
	}
	p := []instruction{{code: opJumpNE, dst: regType, imm: kind}}
	switch {
	case s.allow: // go on when one of the accesses is asked
		p = append(p,
			instruction{code: opJumpSet, dst: regAccess, imm: int32(how), off: 1},
			instruction{code: opJump})
	case how != mayAnyhow: // leave when another access is asked
		p = append(p, instruction{code: opJumpSet, dst: regAccess, imm: int32(mayAnyhow &^ how)})
	}
	if d.major != wildcard {
		p = append(p, instruction{code: opJumpNE, dst: regMajor, imm: int32(d.major)})
	}
	if d.minor != wildcard {
		p = append(p, instruction{code: opJumpNE, dst: regMinor, imm: int32(d.minor)})
	}
	p = append(p, answer(!s.allow)...)
	for i := range p {
		if c := p[i].code; (c == opJumpNE || c == opJumpSet || c == opJump) && p[i].off == 0 {
			p[i].off = int16(len(p) - i - 1)
		}
	}
	return p
}

func answer(allow bool) []instruction {
	var r int32
	if allow {
		r = 1
	}
	return []instruction{{code: opMoveConst, dst: regResult, imm: r}, {code: opExit}}
}

// encode writes the program as the kernel reads it, on a little-endian machine.
func encode(program []instruction) []byte {
	buf := make([]byte, 0, 8*len(program))
	for _, i := range program {
		buf = append(buf, i.code, i.src<<4|i.dst)
		buf = binary.LittleEndian.AppendUint16(buf, uint16(i.off))
		buf = binary.LittleEndian.AppendUint32(buf, uint32(i.imm))
	}
	return buf
}

// setDevicesV2 attaches the set's program to the branch and detaches what was
// there before. Programs of the cgroups above stay in force, as all must allow.
func (b *branch) setDevicesV2(s *deviceSet) error {
	dir, err := b.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return classify(b.fail("open", ".", err))
	}
	defer unix.Close(dir)
	prog, err := loadDeviceProgram(encode(s.bpf()))
	if err != nil {
		return deviceProgramError(b, "load", err)
	}
	defer unix.Close(prog)
	old, err := attachedDevicePrograms(dir)
	if err != nil {
		return deviceProgramError(b, "query", err)
	}
	defer closeFDs(old)
	if len(old) == 1 {
		return deviceProgramError(b, "replace", attachDeviceProgram(dir, prog, old[0]))
	}
	if err := attachDeviceProgram(dir, prog, -1); err != nil {
		return deviceProgramError(b, "attach", err)
	}
	for _, p := range old {
		if err := detachDeviceProgram(dir, p); err != nil {
			return deviceProgramError(b, "detach", err)
		}
	}
	return nil
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// deviceProgramError classifies what bpf(2) answered.
func deviceProgramError(b *branch, verb string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s device program of cgroup %s: %w", verb, b.dir, err)
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return errdefs.WithHint(errdefs.As(errdefs.ErrUnsupported, err), "Device rules on cgroup v2 need a kernel with CONFIG_CGROUP_BPF.")
	case errors.Is(err, unix.EPERM):
		return errdefs.WithHint(errdefs.As(errdefs.ErrPermission, err), "Device rules on cgroup v2 need CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN.")
	}
	return err
}
