package caps

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

func TestNamesHaveTheKernelsNumbers(t *testing.T) {
	for name, number := range map[string]Cap{
		"CAP_CHOWN": unix.CAP_CHOWN, "CAP_KILL": unix.CAP_KILL, "CAP_SETPCAP": unix.CAP_SETPCAP,
		"CAP_NET_RAW": unix.CAP_NET_RAW, "CAP_SYS_MODULE": unix.CAP_SYS_MODULE, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN,
		"CAP_MKNOD": unix.CAP_MKNOD, "CAP_SETFCAP": unix.CAP_SETFCAP, "CAP_SYSLOG": unix.CAP_SYSLOG,
		"CAP_AUDIT_READ": unix.CAP_AUDIT_READ, "CAP_BPF": unix.CAP_BPF, "CAP_CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
	} {
		if got, err := ParseName(name); err != nil || got != number || got.String() != name {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	if len(names) != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names, headers have %d", len(names), unix.CAP_LAST_CAP+1)
	}
	if sorted := slices.Sorted(slices.Values(names[:])); len(slices.Compact(sorted)) != len(names) {
		t.Error("a name occurs twice")
	}
	if got := Cap(63).String(); got != "CAP_63" {
		t.Errorf("63 is %q", got)
	}
}

func TestParseNameIsStrict(t *testing.T) {
	for _, name := range []string{"", "CHOWN", "cap_chown", "CAP_CHOWN ", "CAP_ALL", "CAP_41"} {
		_, err := ParseName(name)
		var unknown *UnknownError
		if !errors.As(err, &unknown) || !errors.Is(err, errdefs.ErrInvalid) || unknown.Names[0] != name {
			t.Errorf("%q: error %v", name, err)
		}
	}
}

func TestParse(t *testing.T) {
	s, err := Parse(&specs.LinuxCapabilities{
		Bounding:    []string{"CAP_CHOWN", "CAP_BPF", "CAP_CHOWN"},
		Effective:   []string{"CAP_CHOWN"},
		Permitted:   []string{"CAP_KILL", "CAP_ZAP", "CAP_CHOWN"},
		Inheritable: []string{"CAP_NOPE", "CAP_ZAP"},
		Ambient:     []string{"CAP_CHECKPOINT_RESTORE"},
	})
	want := Sets{Bounding: 1 | 1<<39, Effective: 1, Permitted: 1 | 1<<5, Ambient: 1 << 40}
	if s != want {
		t.Errorf("sets %+v, want %+v", s, want)
	}
	if err == nil || err.Error() != `unknown capabilities ["CAP_NOPE" "CAP_ZAP"]` {
		t.Errorf("error %v", err)
	}
	if s, err := Parse(nil); s != (Sets{}) || err != nil {
		t.Errorf("nil: %+v, %v", s, err)
	}
	if got := want.Permitted.String(); got != "CAP_CHOWN,CAP_KILL" {
		t.Errorf("printed %q", got)
	}
}

func TestAll(t *testing.T) {
	for last, want := range map[Cap]Set{0: 1, 40: 1<<41 - 1, 62: 1<<63 - 1, 63: ^Set(0)} {
		if got := All(last); got != want || !got.Has(last) || last < 63 && got.Has(last+1) || got.Has(64) {
			t.Errorf("All(%d) = %#x", last, got)
		}
	}
}

func TestClampReportsWhatItDrops(t *testing.T) {
	s := Sets{Bounding: 0b1111, Effective: 0b0011, Permitted: 0b0111, Inheritable: 0b1000, Ambient: 0b0100}
	kept, dropped := s.Clamp(0b1011)
	if want := (Sets{Bounding: 0b1011, Effective: 0b0011, Permitted: 0b0011, Inheritable: 0b1000}); kept != want {
		t.Errorf("kept %+v, want %+v", kept, want)
	}
	if want := (Sets{Bounding: 0b0100, Permitted: 0b0100, Ambient: 0b0100}); dropped != want || dropped.Union() != 0b0100 {
		t.Errorf("dropped %+v, want %+v", dropped, want)
	}
}

// statusSets reads what the kernel prints about the calling thread.
func statusSets(t *testing.T) Sets {
	t.Helper()
	file, err := os.Open("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	found := map[string]Set{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":\t")
		if strings.HasPrefix(key, "Cap") {
			v, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			found[key] = Set(v)
		}
	}
	return Sets{found["CapBnd"], found["CapEff"], found["CapPrm"], found["CapInh"], found["CapAmb"]}
}

func TestHeldIsWhatTheKernelPrints(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	held, err := Held()
	if err != nil {
		t.Fatal(err)
	}
	if want := statusSets(t); held != want {
		t.Errorf("held %+v, kernel prints %+v", held, want)
	}
	if bounding, err := Bounding(); err != nil || bounding != held.Bounding {
		t.Errorf("bounding %v, %v", bounding, err)
	}
}

func TestLastIsTheKernels(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		t.Fatal(err)
	}
	last, err := Last()
	if err != nil || fmt.Sprintf("%d\n", last) != string(text) {
		t.Errorf("last %d, %v; kernel prints %s", last, err, text)
	}
	if all, err := Supported(); err != nil || all != All(last) {
		t.Errorf("supported %v, %v", all, err)
	}
}

// TestUserDataSetsWhatWasParsed reduces a child's capabilities and has it read them back.
func TestUserDataSetsWhatWasParsed(t *testing.T) {
	if os.Getenv("BERTH_CAPS_CHILD") != "" {
		reduceAndPrint()
		return
	}
	held, err := Held()
	if err != nil {
		t.Fatal(err)
	}
	if want := wanted(); held.Permitted&want.Permitted != want.Permitted || !held.Effective.Has(unix.CAP_SETPCAP) {
		t.Skipf("needs %v and CAP_SETPCAP, has %v", want.Permitted, held.Permitted)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestUserDataSetsWhatWasParsed$")
	cmd.Env = append(os.Environ(), "BERTH_CAPS_CHILD=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	want := wanted()
	want.Bounding = held.Bounding &^ (1 << unix.CAP_SYS_TIME)
	if line := fmt.Sprintf("%+v\n", want); !strings.HasPrefix(string(out), line) {
		t.Errorf("child has %swant %s", out, line)
	}
}

func wanted() Sets {
	return Sets{
		Permitted:   1<<unix.CAP_CHOWN | 1<<unix.CAP_SYSLOG | 1<<unix.CAP_KILL,
		Effective:   1<<unix.CAP_SYSLOG | 1<<unix.CAP_KILL,
		Inheritable: 1<<unix.CAP_KILL | 1<<unix.CAP_SYSLOG,
		Ambient:     1 << unix.CAP_SYSLOG,
	}
}

func reduceAndPrint() {
	runtime.LockOSThread()
	check := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	check(unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_TIME, 0, 0, 0))
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := wanted().UserData()
	check(unix.Capset(&header, &data[0]))
	check(unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_SYSLOG, 0, 0))
	held, err := Held()
	check(err)
	fmt.Printf("%+v\n", held)
	os.Exit(0)
}

func TestSetsPrintByName(t *testing.T) {
	// fmt shows a Set by its names wherever it is printed with %v.
	if got := fmt.Sprint(Sets{Bounding: 3}.Bounding); got != "CAP_CHOWN,CAP_DAC_OVERRIDE" {
		t.Errorf("printed %q", got)
	}
	if got := Set(0).Names(); !reflect.DeepEqual(got, []string{}) {
		t.Errorf("empty set has names %q", got)
	}
}
