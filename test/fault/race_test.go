//go:build amd64

package fault

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-containers/berth/oci"
)

// TestSameContainerAtOnce has many commands about the same container run at once:
// each ends, succeeds or says in one line why it does not, and in the end nothing
// is left.
func TestSameContainerAtOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	r := newRig(t)
	// x has hooks, during which it can be deleted; y has none.
	spec := oci.DefaultSpec()
	spec.Root.Path, spec.Process.Terminal = filepath.Join(r.bundle, "rootfs"), false
	spec.Process.Args, spec.Linux.CgroupsPath = []string{"true"}, parent+"/y"
	if err := os.Mkdir(filepath.Join(r.bundle, "y"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.config("y", spec)
	r.before = host(t, r.bundle, r.root)
	commands := [][]string{
		{"run"}, {"create"}, {"start"}, {"delete"}, {"run"}, {"state"}, {"create"}, {"exec", "true"}, {"start"}, {"kill", "KILL"}, {"run"}, {"list"},
		{"create"}, {"pause"}, {"resume"}, {"delete", "--force"}, {"run"}, {"create"}, {"start"}, {"kill", "--all", "KILL"},
	}
	const callers, rounds = 6, 40
	var all sync.WaitGroup
	var done [callers]map[string]int
	for i := range callers {
		done[i] = map[string]int{}
		all.Add(1)
		go func() {
			defer all.Done()
			for n := range rounds {
				args := named(commands[(n+i*7)%len(commands)], string("xy"[i%2]))
				if r.beside(args) {
					done[i][args[0]]++
				}
			}
		}()
	}
	all.Wait()
	succeeded := map[string]int{}
	for _, d := range done {
		for name, n := range d {
			succeeded[name] += n
		}
	}
	for _, name := range []string{"run", "create", "start", "delete"} {
		if succeeded[name] == 0 {
			t.Errorf("%s never succeeded: %v", name, succeeded)
		}
	}
	for _, id := range []string{"x", "y"} {
		if out, code := r.run("delete", "--force", id); code != 0 || out != "" {
			t.Errorf("delete --force %s: status %d: %s", id, code, out)
		}
	}
	if alive := orphans(t); len(alive) > 0 {
		t.Errorf("processes are left: %v", alive)
	}
	if after := host(t, r.bundle, r.root); after != r.before {
		t.Errorf("the host is not as before:\n%s", difference(r.before, after))
	}
}

// named puts the container's id where the command wants it.
func named(args []string, id string) []string {
	switch args[0] {
	case "list":
		return args
	case "exec":
		return []string{args[0], id, args[1]}
	case "kill":
		last := len(args) - 1
		return append(append(append([]string{}, args[:last]...), id), args[last])
	}
	return append(append([]string{}, args...), id)
}

// beside is one of several commands at once; true when it succeeds.
func (r *rig) beside(args []string) bool {
	f, errs := r.file(), r.file()
	defer f.Close()
	defer errs.Close()
	cmd := exec.Command(r.argv(args)[0], r.argv(args)[1:]...)
	cmd.Stdout, cmd.Stderr = f, errs
	hung := time.AfterFunc(patience, func() {
		if cmd.Process != nil {
			r.t.Errorf("%v hangs", args)
			_ = cmd.Process.Kill()
		}
	})
	defer hung.Stop()
	err := cmd.Run()
	if err == nil {
		return true
	}
	said := strings.Split(strings.TrimSpace(content(r.t, errs)), "\n")
	if n := len(said); n > 1 && strings.HasPrefix(said[n-1], "hint: ") {
		said = said[:n-1]
	}
	runs := args[0] == "run" || args[0] == "exec"
	if killed := runs && fmt.Sprint(err) == "exit status 137"; killed {
		return false // its process, by another of them
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "berth-oci: ") || strings.Contains(said[0], "panic") {
		r.t.Errorf("%v: %v, not one clear line: %q", args, err, said)
	}
	return false
}
