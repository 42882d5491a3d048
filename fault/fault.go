// Package fault lets a test end a process at a named point of its work, to see
// that what is on the disk and in the kernel at that moment can be gone on from.
//
// The points lie behind every step that outlives the process: a file written or
// renamed, a mount, a link, a process made. Unless [Arm] was called with the
// variable set, a point costs one load and a comparison.
//
// BERTH_FAULT has one of two forms:
//
//	POINT[:N]   the process kills itself when it reaches the point for the Nth time
//	/DIR        a directory that is looked at when a point is reached
//
// In such a directory the file "arm" says "POINT:N PID..." and anything behind a
// "#": when the point is reached for the Nth time since the file was written,
// the file is removed and the processes are killed in this order; 0 is the one
// that has reached it. Where there is a file "trace" the points are appended to it
// as they are reached, one a line.
package fault

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// Variable names the environment variable.
const Variable = "BERTH_FAULT"

// plan is what the variable asks for.
type plan struct {
	mu   sync.Mutex
	dir  string // "": text is all there is
	text string
	seen map[Point]int
	// watch is called at every point; nil outside of tests.
	watch func(Point)
}

// armed is the process's plan. It is the package's only state, written by Arm and
// Watch.
var armed atomic.Pointer[plan]

// Arm takes the variable out of the environment and into effect. It is for main,
// before anything is at work.
func Arm() {
	value := os.Getenv(Variable)
	if value == "" {
		return
	}
	os.Unsetenv(Variable)
	a := &plan{text: value, seen: map[Point]int{}}
	if filepath.IsAbs(value) {
		a.dir, a.text = value, ""
	}
	armed.Store(a)
}

// Watch has f called at every point of this process, one at a time, by who has
// reached it: for tests that look at what is there then. Nil ends it.
func Watch(f func(Point)) {
	if f == nil {
		armed.Store(nil)
		return
	}
	armed.Store(&plan{seen: map[Point]int{}, watch: f})
}

// Environment is what a program of ours that this one starts needs for the same
// plan; nil without one.
func Environment() []string {
	a := armed.Load()
	if a == nil || a.watch != nil {
		return nil
	}
	value := a.dir
	if value == "" {
		value = a.text
	}
	return []string{Variable + "=" + value}
}

// Here is a point. It returns unless the point was chosen.
func Here(p Point) {
	if a := armed.Load(); a != nil {
		a.reach(p)
	}
}

// reach counts the point and acts when its time has come.
func (a *plan) reach(p Point) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watch != nil {
		a.watch(p)
		return
	}
	if a.dir != "" {
		a.look(p)
	}
	a.seen[p]++
	order, _, _ := strings.Cut(a.text, "#")
	name, pids, _ := strings.Cut(order, " ")
	name, count, _ := strings.Cut(name, ":")
	n, err := strconv.Atoi(count)
	if err != nil {
		n = 1
	}
	if name != string(p) || a.seen[p] != n {
		return
	}
	if a.dir == "" {
		pids = "0"
	} else {
		os.Remove(filepath.Join(a.dir, "arm"))
	}
	for _, pid := range strings.Fields(pids) {
		kill(pid)
	}
}

// look writes the trace and reads what is armed now.
func (a *plan) look(p Point) {
	if f, err := os.OpenFile(filepath.Join(a.dir, "trace"), os.O_WRONLY|os.O_APPEND, 0); err == nil {
		f.WriteString(string(p) + "\n")
		f.Close()
	}
	text, _ := os.ReadFile(filepath.Join(a.dir, "arm")) // missing: nothing is armed
	if string(text) == a.text {
		return
	}
	a.text = string(text)
	clear(a.seen)
}

// kill ends a process as the kernel's out-of-memory killer would.
func kill(pid string) {
	n, err := strconv.Atoi(pid)
	if err != nil || n < 0 {
		return
	}
	if n == 0 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	syscall.Kill(n, syscall.SIGKILL)
}
