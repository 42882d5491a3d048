// Command gen writes the syscall table of package seccomp.
//
// It reads the per-architecture numbers from golang.org/x/sys/unix, which are
// themselves generated from a current kernel's headers, and adds by hand what
// is not there: x32's deviations from x86-64 and ARM's private calls.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func main() {
	out := flag.String("o", "syscalls_table.go", "file to write")
	flag.Parse()
	dir, err := sysDir()
	if err != nil {
		log.Fatal(err)
	}
	src, err := Table(dir)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(*out, src, 0o644); err != nil {
		log.Fatal(err)
	}
}

// sysDir asks the go command where the module golang.org/x/sys of this build is.
func sysDir() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		return "", fmt.Errorf("locate golang.org/x/sys: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// abis are the columns of the table, in the order of package seccomp's abi
// constants. x32 has no file of its own.
var abis = []struct{ name, goarch string }{
	{"x86-64", "amd64"}, {"x32", ""}, {"i386", "386"}, {"arm64", "arm64"}, {"arm", "arm"},
}

// foreign are the GOARCHs of which only the names are taken, so that a profile
// written for every machine has no unknown ones.
var foreign = []string{"loong64", "mips", "mips64", "ppc", "ppc64le", "riscv64", "s390x"}

const (
	colX86_64 = 0
	colX32    = 1
	colARM    = 4
)

// x32Own are the calls with numbers 512 and up on x32, in order. The range is
// closed (arch/x86/entry/syscalls/syscall_64.tbl: "do not add more").
var x32Own = strings.Fields(`rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg
	execve ptrace rt_sigpending rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create mq_notify
	kexec_load waitid set_robust_list get_robust_list vmsplice move_pages preadv pwritev
	rt_tgsigqueueinfo recvmmsg sendmmsg process_vm_readv process_vm_writev setsockopt getsockopt
	io_setup io_submit execveat preadv2 pwritev2`)

// x32None are the calls marked "64" in syscall_64.tbl that have no number on x32.
var x32None = strings.Fields(`_sysctl create_module epoll_ctl_old epoll_wait_old get_kernel_syms
	get_thread_area nfsservctl query_module set_thread_area uselib vserver map_shadow_stack`)

// armPrivate are ARM's own calls, at 0x0f0000 plus the number
// (arch/arm/include/uapi/asm/unistd.h).
var armPrivate = map[string]int32{
	"breakpoint": 0xf0001, "cacheflush": 0xf0002, "usr26": 0xf0003, "usr32": 0xf0004,
	"set_tls": 0xf0005, "get_tls": 0xf0006,
}

// multiplexed are the calls that i386 also (some of them: only) offers through
// socketcall(2) (the subcall's number) and ipc(2) (with muxIPC added);
// include/uapi/linux/net.h and ipc.h.
var multiplexed = map[string]uint8{
	"socket": 1, "bind": 2, "connect": 3, "listen": 4, "accept": 5, "getsockname": 6,
	"getpeername": 7, "socketpair": 8, "send": 9, "recv": 10, "sendto": 11, "recvfrom": 12,
	"shutdown": 13, "setsockopt": 14, "getsockopt": 15, "sendmsg": 16, "recvmsg": 17,
	"accept4": 18, "recvmmsg": 19, "sendmmsg": 20,

	"semop": muxIPC + 1, "semget": muxIPC + 2, "semctl": muxIPC + 3, "semtimedop": muxIPC + 4,
	"msgsnd": muxIPC + 11, "msgrcv": muxIPC + 12, "msgget": muxIPC + 13, "msgctl": muxIPC + 14,
	"shmat": muxIPC + 21, "shmdt": muxIPC + 22, "shmget": muxIPC + 23, "shmctl": muxIPC + 24,
}

// muxIPC marks a subcall of ipc(2); package seccomp has the same constant.
const muxIPC = 0x80

// placeholder matches constants of the headers that are not syscalls.
var placeholder = regexp.MustCompile(`^(arch_specific_syscall|syscall_mask|(unused|reserved)\d+)$`)

type row [5]int32

// Table returns the Go source of the table, made from the module golang.org/x/sys in dir.
func Table(dir string) ([]byte, error) {
	rows := map[string]*row{}
	at := func(name string) *row {
		if rows[name] == nil {
			rows[name] = &row{-1, -1, -1, -1, -1}
		}
		return rows[name]
	}
	for col, a := range abis {
		if a.goarch == "" {
			continue
		}
		nrs, err := numbers(filepath.Join(dir, "unix", "zsysnum_linux_"+a.goarch+".go"))
		if err != nil {
			return nil, err
		}
		for name, nr := range nrs {
			at(name)[col] = nr
		}
	}
	for _, goarch := range foreign {
		nrs, err := numbers(filepath.Join(dir, "unix", "zsysnum_linux_"+goarch+".go"))
		if err != nil {
			return nil, err
		}
		for name := range nrs {
			at(name)
		}
	}
	for name, r := range rows {
		if r[colX86_64] >= 0 && !slices.Contains(x32None, name) {
			at(name)[colX32] = r[colX86_64]
		}
	}
	for i, name := range x32Own {
		at(name)[colX32] = 512 + int32(i)
	}
	for name, nr := range armPrivate {
		at(name)[colARM] = nr
	}
	// The header names the call twice, Go's table once.
	at("sync_file_range2")[colARM] = rows["arm_sync_file_range"][colARM]
	return render(rows)
}

func render(rows map[string]*row) ([]byte, error) {
	names := make([]string, 0, len(rows))
	for name := range rows {
		names = append(names, name)
	}
	slices.Sort(names)
	var b bytes.Buffer
	b.WriteString("// Code generated by internal/gen from golang.org/x/sys/unix; DO NOT EDIT.\n\npackage seccomp\n\n")
	b.WriteString("// syscallTable holds every known syscall, sorted by name, with its number on\n")
	b.WriteString("// x86-64, x32 (without the ABI bit), i386, arm64 and arm; -1 where it has none.\n")
	b.WriteString("// The last column is its subcall of i386's socketcall or ipc, 0 for none.\n")
	b.WriteString("var syscallTable = [...]syscallRow{\n")
	for _, name := range names {
		r := rows[name]
		fmt.Fprintf(&b, "{%q, [abiCount]int32{%d, %d, %d, %d, %d}, %#x},\n",
			name, r[0], r[1], r[2], r[3], r[4], multiplexed[name])
	}
	b.WriteString("}\n")
	return format.Source(b.Bytes())
}

// numbers reads the SYS_ constants of one zsysnum file, names in lower case.
func numbers(path string) (map[string]int32, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("read syscall numbers: %w", err)
	}
	nrs := map[string]int32{}
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.CONST {
			continue
		}
		for _, spec := range gen.Specs {
			v := spec.(*ast.ValueSpec)
			name, isCall := strings.CutPrefix(v.Names[0].Name, "SYS_")
			name = strings.ToLower(name)
			if !isCall || placeholder.MatchString(name) {
				continue
			}
			nr, err := strconv.ParseInt(v.Values[0].(*ast.BasicLit).Value, 0, 32)
			if err != nil {
				return nil, fmt.Errorf("read number of %s in %s: %w", name, path, err)
			}
			nrs[name] = int32(nr)
		}
	}
	if len(nrs) < 250 {
		return nil, fmt.Errorf("read syscall numbers of %s: only %d found", path, len(nrs))
	}
	return nrs, nil
}
