package oci

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/kernel/cgroup"
	p "github.com/berth-containers/berth/kernel/program"
)

// The files attack_*_test.go repeat the escapes of the past, by theme: paths,
// /proc, descriptors, terminals, privileges. Each test names its CVE, and where
// it can it also proves itself: it spoils the plan into what a naive runtime
// would do, and the attack must then succeed.

// spoil changes one op of a plan for the worse.
type spoil func(prog *p.Program, op *p.Op)

// spoilAll applies a spoil to every op of a plan; nil leaves it as it is.
func (s spoil) spoilAll(plan *Plan) {
	for i := range plan.Program.Len() {
		if s != nil {
			s(plan.Program, plan.Program.Op(i))
		}
	}
}

// followLinks makes every lookup one by path, as before openat2: from the
// process's own root, through any link.
func followLinks(prog *p.Program, op *p.Op) {
	if op.Sys == p.Openat2 {
		binary.LittleEndian.PutUint64(prog.At(op.Args[2])[16:], 0)
	}
}

// text is the string an argument points to.
func text(prog *p.Program, a p.Arg) string {
	s, _, _ := bytes.Cut(prog.At(a), []byte{0})
	return string(s)
}

// attacker starts containers from one specification, many times.
type attacker struct {
	t     *testing.T
	r     *Runner
	spec  *specs.Spec
	g     *cgroup.Group
	in    *os.File
	extra []*os.File
}

func attack(t *testing.T, s *specs.Spec) *attacker {
	t.Helper()
	return &attacker{t: t, r: runner(t), spec: s, g: group(t, s)}
}

// try runs the container once, with a spoiled plan, and returns what it wrote. An
// error is that of the set-up.
func (a *attacker) try(naive spoil) (string, error) {
	a.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		a.t.Fatal(err)
	}
	defer r.Close()
	stdio := Stdio{In: a.in, Out: w, Err: w}
	plan, err := a.r.plan(&StartRequest{
		ID: "test", Spec: a.spec, Bundle: "/", Cgroup: a.g, Stdio: stdio, ExtraFiles: a.extra,
	}, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	naive.spoilAll(plan)
	pr, err := a.r.launch(plan, stdio, nil, launchHooks{})
	w.Close()
	return output(a.t, r, pr, err)
}

// output reads what a process writes until its end.
func output(t *testing.T, r *os.File, pr *Process, err error) (string, error) {
	t.Helper()
	if err != nil {
		return "", err
	}
	defer pr.Close()
	if pr.Console != nil {
		r = pr.Console
	}
	out, err := io.ReadAll(r)
	if err != nil && pr.Console == nil { // a terminal ends with EIO
		t.Fatal(err)
	}
	if _, err := pr.Wait(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), nil
}

// try is exec with a spoiled plan.
func (s *sleeper) try(pr *specs.Process, naive spoil, stdin *os.File, extra ...*os.File) (string, error) {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	host, err := thisHost(false)
	if err != nil {
		s.t.Fatal(err)
	}
	stdio := Stdio{In: stdin, Out: w, Err: w}
	in := &compileInput{spec: s.req.Spec, extra: extra, host: host, hostNull: stdio.hostNull()}
	in.useCgroup(s.req.Cgroup)
	plan, err := compileExec(in, pr, inherited{name: "init", file: s.init.Pidfd}, s.init.Pid)
	if err != nil {
		s.t.Fatal(err)
	}
	plan.cloneInto(s.req.Cgroup)
	naive.spoilAll(plan)
	started, err := s.r.launch(plan, stdio, nil, launchHooks{})
	w.Close()
	return output(s.t, r, started, err)
}

// Bounds of the races: how often a container is started while names change
// places, and how often at most until the naive variant is caught.
const (
	raceRounds  = 60
	naiveRounds = 1000
)

// swapping lets two names change places in a loop (renameat2, RENAME_EXCHANGE),
// as somebody does who shares a directory with a container that is being made.
// stop ends it.
func swapping(t *testing.T, a, b string) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var swapper sync.WaitGroup
	times := 0
	swapper.Add(1)
	go func() {
		defer swapper.Done()
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
				t.Errorf("exchange %s and %s: %v", a, b, err)
				return
			}
			times++
		}
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			close(done)
			swapper.Wait()
			if times < raceRounds {
				t.Errorf("the names changed places only %d times", times)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// write makes files below a directory; a name that ends in "/" is a directory,
// a content that begins with "-> " makes a symbolic link.
func write(t *testing.T, dir string, files ...string) {
	t.Helper()
	for i := 0; i < len(files); i += 2 {
		name, content := dir+"/"+files[i], files[i+1]
		err := os.MkdirAll(name[:strings.LastIndexByte(name, '/')], 0o755)
		if target, link := strings.CutPrefix(content, "-> "); err == nil && link {
			err = os.Symlink(target, name)
		} else if err == nil && !strings.HasSuffix(name, "/") {
			err = os.WriteFile(name, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// entries are the names in a directory of the host that was empty before.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}
