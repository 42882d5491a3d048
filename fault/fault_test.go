package fault

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestListIsWhole compares the constants with the list: a point that the list
// forgot would be one that no test asks for.
func TestListIsWhole(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "points.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var named []Point
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			named = append(named, Point(s))
		}
		return true
	})
	listed := Points()
	slices.Sort(named)
	slices.Sort(listed)
	if !slices.Equal(named, listed) || len(slices.Compact(listed)) != len(named) {
		t.Errorf("constants %q\nlist %q", named, listed)
	}
}

// TestMain lets the test binary be what is killed.
func TestMain(m *testing.M) {
	if os.Getenv(Variable) == "" {
		os.Exit(m.Run())
	}
	Arm()
	for range 3 {
		Here(CreateDir)
		os.Stdout.WriteString(strings.Join(append(Environment(), os.Getenv(Variable)), " ") + "\n")
	}
	os.Exit(0)
}

func TestHere(t *testing.T) {
	Here(CreateDir) // not armed: nothing happens
	dir := t.TempDir()
	for _, tc := range []struct {
		value, arm string
		lines      int
		killed     bool
	}{
		{"engine.create.dir", "", 0, true},
		{"engine.create.dir:3", "", 2, true},
		{"engine.create.dir:4", "", 3, false},
		{"engine.create.record", "", 3, false},
		{dir, "", 3, false},
		{dir, "engine.create.dir:2 0 # one", 1, true},
		{dir, "engine.create.record:1 0", 3, false},
	} {
		if err := os.WriteFile(filepath.Join(dir, "arm"), []byte(tc.arm), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "trace"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), Variable+"="+tc.value)
		out, _ := cmd.Output() // how it ended is what is asked below
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if got := strings.Count(string(out), Variable+"="+tc.value+" \n"); got != tc.lines || status.Signaled() != tc.killed {
			t.Errorf("%+v: %d lines, %v\n%s", tc, got, status, out)
		}
		trace, err := os.ReadFile(filepath.Join(dir, "trace"))
		if err != nil {
			t.Fatal(err)
		}
		if want := tc.lines + btoi(tc.killed); tc.value == dir && strings.Count(string(trace), "engine.create.dir\n") != want {
			t.Errorf("%+v: trace %q", tc, trace)
		}
		if _, err := os.Stat(filepath.Join(dir, "arm")); tc.value == dir && tc.killed == (err == nil) {
			t.Errorf("%+v: the order is left: %v", tc, err)
		}
	}
}

// TestWatch: every point is told of, until nobody watches.
func TestWatch(t *testing.T) {
	var seen []Point
	Watch(func(p Point) { seen = append(seen, p) })
	Here(CreateDir)
	Here(StopSignal)
	Watch(nil)
	Here(CreateDone)
	if !slices.Equal(seen, []Point{CreateDir, StopSignal}) || Environment() != nil {
		t.Errorf("seen %q", seen)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
