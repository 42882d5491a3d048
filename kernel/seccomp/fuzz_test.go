package seccomp

import (
	"errors"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
)

// source makes decisions from fuzz input; after its end every choice is the first.
type source struct{ data []byte }

func (s *source) next(n int) int {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return int(b) % n
}

func (s *source) value() uint64 {
	base := edgeValues[s.next(len(edgeValues))]
	return base + uint64(s.next(8)) - 2
}

var (
	fuzzActions = []specs.LinuxSeccompAction{specs.ActErrno, specs.ActAllow, specs.ActKill, specs.ActTrap, specs.ActLog,
		specs.ActTrace, specs.ActNotify, specs.ActKillProcess, specs.ActKillThread}
	// fuzzNames favour what is special somewhere.
	fuzzNames = []string{"read", "write", "open", "socket", "socketcall", "ipc", "shmat", "accept", "send", "ioctl", "execve",
		"set_tls", "preadv2", "clone", "listns", "rseq_slice_yield", "_llseek", "nonsense", "fcntl", "io_setup", "semtimedop",
		"riscv_hwprobe", "time", "personality", "uselib", "restart_syscall"}
	fuzzArches = [][]specs.Arch{allArches, nil, {specs.ArchX86}, {specs.ArchX32}, {specs.ArchX86_64, specs.ArchX32, specs.ArchX86}, {specs.ArchARM, specs.ArchS390X}}
)

func (s *source) errno(a specs.LinuxSeccompAction) *uint {
	if (a == specs.ActErrno || a == specs.ActTrace) && s.next(3) == 1 {
		n := uint(s.next(40))
		return &n
	}
	return nil
}

func (s *source) profile() *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: fuzzActions[s.next(len(fuzzActions))], Architectures: fuzzArches[s.next(len(fuzzArches))]}
	p.DefaultErrnoRet = s.errno(p.DefaultAction)
	for len(s.data) > 0 {
		r := specs.LinuxSyscall{Action: fuzzActions[s.next(len(fuzzActions))]}
		r.ErrnoRet = s.errno(r.Action)
		for n := 1 + s.next(3); n > 0; n-- {
			if i := s.next(40); i < len(fuzzNames) {
				r.Names = append(r.Names, fuzzNames[i])
			} else {
				r.Names = append(r.Names, syscallTable[(s.next(256)*3+i)%len(syscallTable)].name)
			}
		}
		for n := s.next(5); n > 1; n-- {
			r.Args = append(r.Args, specs.LinuxSeccompArg{Index: uint(s.next(6)), Op: operators[s.next(len(operators))],
				Value: s.value(), ValueTwo: s.value()})
		}
		p.Syscalls = append(p.Syscalls, r)
	}
	return p
}

// FuzzCompile compiles profiles made from the input and compares the filter, run in a
// BPF machine, with the reference.
func FuzzCompile(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 3, 0, 3, 7, 2, 3, 1})
	f.Add([]byte("a profile is made of these bytes, whatever they say"))
	seed := make([]byte, 600)
	for i := range seed {
		seed[i] = byte(i*i + i>>3)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1500 {
			t.Skip("longer profiles only take longer")
		}
		p := (&source{data}).profile()
		if _, err := compileFor(p, "amd64"); errors.Is(err, errdefs.ErrUnsupported) {
			return // too long
		}
		check(t, p, "amd64")
	})
}
