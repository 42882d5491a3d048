package seccomp

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTableIsSortedAndInRange(t *testing.T) {
	if !slices.IsSortedFunc(syscallTable[:], func(a, b syscallRow) int { return strings.Compare(a.name, b.name) }) {
		t.Error("names are not sorted")
	}
	for i, row := range syscallTable {
		if i > 0 && row.name == syscallTable[i-1].name {
			t.Errorf("%s occurs twice", row.name)
		}
		for a, nr := range row.nr {
			regular := nr >= -1 && nr < regularSlots
			switch abi(a) {
			case abiX32:
				regular = nr == -1 || nr >= x32OwnFirst && nr < x32OwnEnd
			case abiARM:
				regular = regular || nr >= armPrivateFirst && nr < armPrivateFirst+armPrivateSlots
			}
			if !regular {
				t.Errorf("%s has number %d in column %d", row.name, nr, a)
			}
		}
		if lookup(row.name, -1) != i || lookup(row.name, i-1) != i || lookup(row.name, len(syscallTable)) != i {
			t.Errorf("%s is not found", row.name)
		}
	}
	for _, name := range []string{"", "READ", "read ", "zzz", "_"} {
		if got := lookup(name, -1); got != -1 {
			t.Errorf("%q found at %d", name, got)
		}
	}
}

// TestTableKnowsThisMachine compares with numbers that were compiled in from elsewhere.
func TestTableKnowsThisMachine(t *testing.T) {
	native, err := nativeABI(runtime.GOARCH)
	if err != nil {
		t.Skip(err)
	}
	for name, nr := range map[string]int32{
		"read": unix.SYS_READ, "openat2": unix.SYS_OPENAT2, "clone3": unix.SYS_CLONE3, "mount": unix.SYS_MOUNT,
		"seccomp": unix.SYS_SECCOMP, "landlock_create_ruleset": unix.SYS_LANDLOCK_CREATE_RULESET, "execve": unix.SYS_EXECVE,
	} {
		if got := syscallTable[lookup(name, -1)].nr[native]; got != nr {
			t.Errorf("%s is %d, want %d", name, got, nr)
		}
	}
	// Spot checks of the others, from the kernel's syscall tables.
	for name, want := range map[string][abiCount]int32{
		"execve":     {59, 520, 11, 221, 11},
		"ioctl":      {16, 514, 54, 29, 54},
		"socket":     {41, -1, 359, 198, 281},
		"socketcall": {-1, -1, 102, -1, -1},
		"clone3":     {435, -1, 435, 435, 435},
		"set_tls":    {-1, -1, -1, -1, 0xf0005},
		"_llseek":    {-1, -1, 140, -1, 140},
		"pwritev2":   {328, 547, 379, 287, 393},
	} {
		if got := syscallTable[lookup(name, -1)].nr; got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}

func TestTableIsGenerated(t *testing.T) {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	out := filepath.Join(t.TempDir(), "table.go")
	if text, err := exec.Command(goCommand, "run", "./internal/gen", "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("generate: %v\n%s", err, text)
	}
	fresh, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile("syscalls_table.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(fresh, committed) {
		t.Error("syscalls_table.go is out of date: run go generate")
	}
}
