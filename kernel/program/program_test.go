package program

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// start makes p's process with this standard input and output. The image is
// closed when the test ends; the caller reaps the process.
func start(t *testing.T, p *Program, stdin, stdout *os.File) (pid int, image *os.File) {
	t.Helper()
	img, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if image, err = NewImage(img); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { image.Close() })
	ip, err := NewInterpreter()
	if err != nil {
		t.Fatal(err)
	}
	defer ip.Close()
	pid, pidfd, err := ip.Start(&Launch{
		Image: image, Stdio: [3]*os.File{stdin, stdout, nil}, Attr: &syscall.SysProcAttr{}, Name: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	pidfd.Close()
	return pid, image
}

// wait reaps a process.
func wait(t *testing.T, pid int) syscall.WaitStatus {
	t.Helper()
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		t.Fatalf("process %d is not our child: %v", pid, err)
	}
	return ws
}

// run executes p with its standard output on a pipe and returns what it wrote,
// its exit status and its report.
func run(t *testing.T, p *Program) (string, syscall.WaitStatus, Report) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pid, image := start(t, p, nil, w)
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	ws := wait(t, pid)
	rep, err := ReadReport(image)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), ws, rep
}

func (p *Program) say(s string) *Op {
	return p.Call("say "+s, Write, Int(1), p.Str(s), Int(len(s)))
}

func (p *Program) exit(code int) { p.Call("exit", ExitGroup, Int(code)) }

func TestJumpsSlotsAndTolerance(t *testing.T) {
	var p Program
	slot := p.Slot("null")
	missing, found, done := p.NewLabel(), p.NewLabel(), p.NewLabel()
	p.Call("open nothing", Openat, Int(unix.AT_FDCWD), p.Str("/no/such/file"), Int(0)).OnErrno(unix.ENOENT, missing)
	p.say("not reached\n")
	p.Mark(missing)
	p.Call("open null", Openat, Int(unix.AT_FDCWD), p.Str("/dev/null"), Int(unix.O_RDWR)).Store(slot).Then(found)
	p.say("not reached\n")
	p.Mark(found)
	p.Call("write to null", Write, slot, p.Str("x"), Int(1))
	p.Call("close null", Close, slot)
	p.Call("close it again", Close, slot).Tolerate(unix.EIO, unix.EBADF)
	p.Call("read closed", Read, slot, p.Str("buffer"), Int(1)).TolerateAll()
	p.Call("close null", Close, slot).OnErrno(unix.EIO, 0).OnAnyErrno(done)
	p.say("not reached\n")
	p.Mark(done)
	p.say("end\n")
	p.exit(7)

	out, ws, rep := run(t, &p)
	if out != "end\n" || ws.ExitStatus() != 7 {
		t.Errorf("output %q, status %d", out, ws.ExitStatus())
	}
	if rep.Failed || p.Step(rep.Op) != "say end\n" { // the exit is not noted
		t.Errorf("report %+v at %q", rep, p.Step(rep.Op))
	}
}

func TestFailureNamesStepAndErrno(t *testing.T) {
	var p Program
	p.say("before\n")
	p.Call("open the missing", Openat, Int(unix.AT_FDCWD), p.Str("/no/such/file"), Int(0)).Tolerate(unix.EACCES)
	p.say("after\n")
	p.exit(0)
	out, ws, rep := run(t, &p)
	if out != "before\n" || ws.ExitStatus() != 255 {
		t.Errorf("output %q, status %d", out, ws.ExitStatus())
	}
	if !rep.Failed || rep.Errno != unix.ENOENT || p.Step(rep.Op) != "open the missing" {
		t.Errorf("report %+v at %q", rep, p.Step(rep.Op))
	}
}

func TestExecveGetsArgumentsAndEnvironment(t *testing.T) {
	var p Program
	p.Call("exec", Execve, p.Str("/bin/sh"),
		p.Strings([]string{"sh", "-c", `echo "$0 $V"; readlink /proc/$$/exe >/dev/null; exit 3`, "zero"}, "argv"),
		p.Strings([]string{"V=value"}, "envp"))
	out, ws, _ := run(t, &p)
	if out != "zero value\n" || ws.ExitStatus() != 3 {
		t.Errorf("output %q, status %d", out, ws.ExitStatus())
	}
}

func TestCloneChildTakesItsOwnBranch(t *testing.T) {
	var p Program
	child := p.NewLabel()
	pid := p.Slot("pid")
	p.Call("fork", Clone, Int(int(unix.SIGCHLD)|unix.CLONE_PARENT), Int(0), Int(0), Int(0), Int(0)).ThenIfZero(child).Store(pid)
	p.exit(11)
	p.Mark(child)
	p.say("child\n")
	p.exit(12)

	first, image := start(t, &p, nil, nil)
	if ws := wait(t, first); ws.ExitStatus() != 11 {
		t.Fatalf("parent branch: status %d", ws.ExitStatus())
	}
	second, err := p.ReadSlot(image, pid)
	if err != nil {
		t.Fatal(err)
	}
	ws := wait(t, int(second))
	// The child's standard output is closed: its write fails, and says so.
	rep, _ := ReadReport(image)
	if ws.ExitStatus() != 255 || !rep.Failed || rep.Errno != unix.EBADF {
		t.Errorf("child: status %d, report %+v", ws.ExitStatus(), rep)
	}
}

func TestInterpreterIsTheProcessAndIsSealed(t *testing.T) {
	var p Program
	p.say("x")
	p.Call("wait", Read, Int(0), p.Str("buffer"), Int(1))
	p.exit(0)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	begun, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer begun.Close()
	pid, _ := start(t, &p, r, out)
	out.Close()
	defer func() {
		w.Close()
		wait(t, pid)
	}()
	// Start returns while the kernel may yet be about to change the executable.
	if _, err := begun.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	exe := "/proc/" + strconv.Itoa(pid) + "/exe"
	if target, err := os.Readlink(exe); err != nil || !strings.HasPrefix(target, "/memfd:berth-init") {
		t.Errorf("the process runs %q (%v)", target, err)
	}
	got, err := os.ReadFile(exe)
	if err != nil || !bytes.Equal(got, executable(interpreterCode())) {
		t.Errorf("executable differs from the interpreter (%v)", err)
	}
	if err := os.WriteFile(exe, []byte("x"), 0); err == nil {
		t.Error("the executable can be written")
	}
	if err := os.Truncate(exe, 0); err == nil {
		t.Error("the executable can be truncated")
	}
	if err := os.Chmod(exe, 0); err == nil {
		t.Error("the executable can be made one that nobody may execute")
	}
}

func TestEncodeRefusesProgramsThatDoNotEnd(t *testing.T) {
	var empty Program
	if _, err := empty.Encode(); err == nil {
		t.Error("an empty program was encoded")
	}
	var p Program
	back := p.NewLabel()
	p.Mark(back)
	p.Call("a", Close, Int(0))
	p.Call("b", Close, Int(0)).Then(back)
	if _, err := p.Encode(); err == nil {
		t.Error("a backward jump was encoded")
	}
	var q Program
	past := q.NewLabel()
	q.Call("a", Close, Int(0)).Then(past)
	q.Mark(past)
	if _, err := q.Encode(); err == nil {
		t.Error("a jump past the end was encoded")
	}
}

// A trace changes neither what a program does nor what is read from its image.
func TestTrace(t *testing.T) {
	var p Program
	slot, end := p.Slot("null"), p.NewLabel()
	p.Trace()
	p.Call("open null", Openat, Int(unix.AT_FDCWD), p.Str("/dev/null"), Int(unix.O_RDWR)).Store(slot).Then(end)
	p.say("not reached\n")
	p.Mark(end)
	p.say("end\n")
	p.Call("close nothing", Close, Int(1000))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pid, image := start(t, &p, r, w)
	w.Close()
	out, err := io.ReadAll(r)
	if ws := wait(t, pid); err != nil || string(out) != "end\n" || ws.ExitStatus() != 255 {
		t.Errorf("output %q, status %d, %v", out, ws.ExitStatus(), err)
	}
	if rep, err := ReadReport(image); err != nil || !rep.Failed || rep.Op != 3 || rep.Errno != unix.EBADF {
		t.Errorf("report %+v, %v", rep, err)
	}
	if fd, err := p.ReadSlot(image, slot); err != nil || fd != 2 { // the first that is free
		t.Errorf("slot %d, %v", fd, err)
	}
	for i, sys := range []Sys{Openat, Write, Write, Close} {
		if in, err := InCall(image, i, sys); err != nil || !in {
			t.Errorf("op %d is no %s: %v", i, sys.Name, err)
		}
	}
	stamps, err := p.ReadStamps(image)
	if err != nil || len(stamps) != 3 || stamps[1].Op != 2 || stamps[0].At > stamps[2].At || stamps[2].At > Now() {
		t.Errorf("stamps %+v, %v", stamps, err)
	}
}

func TestExplainShowsEveryCall(t *testing.T) {
	var p Program
	s := p.Slot("fd")
	l := p.NewLabel()
	p.Call("open it", Openat, Flag(0xffffff9c, "AT_FDCWD"), p.Str("/x"), Flag(0x200000, "O_PATH")).
		Store(s).OnErrno(unix.ENOENT, l).Tolerate(unix.EACCES)
	p.Call("close it", Close, s)
	p.Mark(l)
	p.Call("exit", ExitGroup, Int(0))
	var b strings.Builder
	if err := p.Explain(&b); err != nil {
		t.Fatal(err)
	}
	want := `  0  open it   openat(AT_FDCWD, "/x", O_PATH) = fd; ENOENT: 2; EACCES is fine
  1  close it  close(fd)
  2  exit      exit_group(0)
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func BenchmarkStart(b *testing.B) {
	var p Program
	p.Call("exit", ExitGroup, Int(0))
	img, err := p.Encode()
	if err != nil {
		b.Fatal(err)
	}
	ip, err := NewInterpreter()
	if err != nil {
		b.Fatal(err)
	}
	defer ip.Close()
	for b.Loop() {
		image, err := NewImage(img)
		if err != nil {
			b.Fatal(err)
		}
		pid, pidfd, err := ip.Start(&Launch{Image: image, Attr: &syscall.SysProcAttr{}, Name: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			b.Fatal(err)
		}
		pidfd.Close()
		image.Close()
	}
}
