package cgroup

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loadTries bounds the answers EAGAIN, with which the verifier reports that a
// signal interrupted it.
const loadTries = 30

// bpf calls bpf(2) with a part of union bpf_attr, which the kernel takes as
// followed by zeros.
func bpf[T any](cmd int, attr *T) (int, error) {
	for try := 1; ; try++ {
		r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
		if errno == 0 {
			return int(r), nil
		}
		if errno != unix.EINTR && (errno != unix.EAGAIN || try == loadTries) {
			return -1, errno
		}
	}
}

// address is a pointer for bpf_attr. The kernel reads it as an integer, so the
// pinner keeps the object where it is.
func address[T any](pin *runtime.Pinner, p *T) uint64 {
	pin.Pin(p)
	return uint64(uintptr(unsafe.Pointer(p)))
}

// loadDeviceProgram gives the kernel a program and returns its descriptor, which
// the kernel opens close-on-exec.
func loadDeviceProgram(program []byte) (int, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	license := []byte("Apache-2.0\x00")
	return bpf(unix.BPF_PROG_LOAD, &struct {
		kind, count      uint32
		program, license uint64
		_                [4]uint64 // log, kern_version, flags
	}{
		kind:    unix.BPF_PROG_TYPE_CGROUP_DEVICE,
		count:   uint32(len(program) / 8),
		program: address(&pin, &program[0]),
		license: address(&pin, &license[0]),
	})
}

// attachment is bpf_attr of BPF_PROG_ATTACH and BPF_PROG_DETACH.
type attachment struct {
	cgroup, program, kind, flags, replace uint32
}

// attachDeviceProgram adds the program to those of the cgroup or, when replace
// is a descriptor, takes the place of that one in one act.
func attachDeviceProgram(cgroup, program, replace int) error {
	a := attachment{cgroup: uint32(cgroup), program: uint32(program), kind: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	if replace >= 0 {
		a.flags |= unix.BPF_F_REPLACE
		a.replace = uint32(replace)
	}
	_, err := bpf(unix.BPF_PROG_ATTACH, &a)
	return err
}

func detachDeviceProgram(cgroup, program int) error {
	_, err := bpf(unix.BPF_PROG_DETACH, &attachment{cgroup: uint32(cgroup), program: uint32(program), kind: unix.BPF_CGROUP_DEVICE})
	return err
}

// maxAttached is the kernel's BPF_CGROUP_MAX_PROGS.
const maxAttached = 64

// attachedDevicePrograms opens the programs attached to the cgroup itself. One
// that a security module hides from us is left out: it can only restrict further.
func attachedDevicePrograms(cgroup int) ([]int, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	var ids [maxAttached]uint32
	query := struct {
		cgroup, kind, flags, attachFlags uint32
		ids                              uint64
		count, _                         uint32
		// Linux 6.17 to 7.1 write the last of these whatever the size given.
		_ [4]uint64
	}{cgroup: uint32(cgroup), kind: unix.BPF_CGROUP_DEVICE, ids: address(&pin, &ids[0]), count: maxAttached}
	if _, err := bpf(unix.BPF_PROG_QUERY, &query); err != nil {
		return nil, err
	}
	var fds []int
	for _, id := range ids[:query.count] {
		fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, &struct{ id, _, _ uint32 }{id: id})
		if err == unix.EPERM || err == unix.EACCES || err == unix.ENOENT {
			continue
		}
		if err != nil {
			closeFDs(fds)
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}
