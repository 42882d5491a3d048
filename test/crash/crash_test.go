package crash_test

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/berth-containers/berth/fault"
)

// wholeVar asks for every case instead of a sample: "all", or of the operations
// that it names, with commas between. make crash sets it.
const wholeVar = "BERTH_CRASH_WHOLE"

// sampleEvery is the one case of how many that a sample has.
const sampleEvery = 15

// victim is who is killed when a point is reached.
type victim string

const (
	theEngine victim = "engine"
	theKeeper victim = "keeper"
	both      victim = "both"
)

// crash is one case: a victim killed when an operation reaches a point for the
// nth time.
type crash struct {
	op    *operation
	point fault.Point
	n     int
	who   victim
}

func (c crash) String() string { return fmt.Sprintf("%s/%s:%d/%s", c.op.name, c.point, c.n, c.who) }

// outcome is what an operation does when nobody is killed.
type outcome struct {
	before, after string
	points        []fault.Point // in the order they were reached, with repetitions
}

// TestCrash runs every operation once and notes the points it passes; then again for
// every point, each time with the engine, the keeper or both killed there. What the
// next ones make of it must be the state before or the state after, the operation
// must succeed when it is repeated, and a check must find nothing.
func TestCrash(t *testing.T) {
	r := newRig(t)
	reached := map[fault.Point]bool{}
	tally := tally{}
	ops := operations()
	for i := range ops {
		if err := r.clear(); err != nil {
			t.Fatal(err)
		}
		o := r.rehearse(t, &ops[i])
		counts := map[fault.Point]int{}
		var cases []crash
		for _, p := range o.points {
			counts[p]++
			reached[p] = true
			for _, who := range []victim{theEngine, theKeeper, both} {
				cases = append(cases, crash{&ops[i], p, counts[p], who})
			}
		}
		r.tryAll(t, choose(cases), o, &tally)
	}
	for _, p := range fault.Points() {
		if !reached[p] {
			t.Errorf("no operation reaches the point %s", p)
		}
	}
	t.Logf("%d cases; in %d the point was not reached", tally.cases, tally.missed)
	if tally.missed > 2+tally.cases/20 {
		t.Error("too many points were not reached when somebody was to be killed there")
	}
}

// tally counts cases.
type tally struct{ cases, missed, failed int }

// tryAll tries an operation's cases. After a failure the next one begins from
// nothing.
func (r *rig) tryAll(t *testing.T, cases []crash, o outcome, sum *tally) {
	for _, c := range cases {
		sum.cases++
		hit := true
		ok := t.Run(c.String(), func(t *testing.T) { hit = r.try(t, c, o) })
		if !hit {
			sum.missed++
		}
		if ok {
			continue
		}
		if sum.failed++; sum.failed == 4 {
			t.Fatal("too many failures")
		}
		r.purge(t)
		r.begin(t)
	}
}

// choose is all cases, or the same sample every time.
func choose(cases []crash) []crash {
	if only := os.Getenv(wholeVar); only != "" {
		names := strings.Split(only, ",")
		return slices.DeleteFunc(cases, func(c crash) bool { return only != "all" && !slices.Contains(names, c.op.name) })
	}
	return slices.DeleteFunc(cases, func(c crash) bool {
		h := fnv.New32a()
		h.Write([]byte(c.String()))
		return h.Sum32()%sampleEvery != 0
	})
}

// rehearse runs an operation and notes what it does.
func (r *rig) rehearse(t *testing.T, op *operation) outcome {
	t.Helper()
	if err := op.ensure(r); err != nil {
		t.Fatalf("%s: before: %v", op.name, err)
	}
	before, err := r.observe()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.path("fault/trace"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err = op.act(r)
	text, rerr := os.ReadFile(r.path("fault/trace"))
	if err := errors.Join(err, rerr, os.Remove(r.path("fault/trace"))); err != nil {
		t.Fatalf("%s: %v", op.name, err)
	}
	o := outcome{before: before}
	for line := range strings.Lines(string(text)) {
		o.points = append(o.points, fault.Point(strings.TrimSpace(line)))
	}
	if o.after, err = r.observe(); err != nil {
		t.Fatal(err)
	}
	if findings, err := r.check(); err != nil || findings != "" {
		t.Errorf("%s: check finds %s (%v)", op.name, findings, err)
	}
	return o
}

// try is one case. It reports whether the point was reached.
func (r *rig) try(t *testing.T, c crash, o outcome) bool {
	if err := c.op.ensure(r); err != nil {
		t.Fatalf("before: %v", err)
	}
	if state, err := r.observe(); err != nil || state != o.before {
		t.Fatalf("before: %v\n%s\nwant\n%s", err, state, o.before)
	}
	r.arm(t, c)
	acted := c.op.act(r)
	if _, err := os.Stat(r.path("fault/arm")); err == nil {
		if err := os.Remove(r.path("fault/arm")); err == nil {
			if acted != nil {
				t.Errorf("the operation, with nobody killed: %v", acted)
			}
			return false
		}
	}
	r.recover(t, c)
	state := r.settle(t, c, o)
	if state != o.before || c.op.anew {
		if err := c.op.ensure(r); err != nil {
			t.Fatalf("before the repetition: %v", err)
		}
	}
	if err := c.op.act(r); err != nil {
		t.Fatalf("repeated: %v", err)
	}
	if state, err := r.observe(); err != nil || state != o.after {
		t.Fatalf("repeated: %v\n%s\nwant\n%s", err, state, o.after)
	}
	if findings, err := r.check(); err != nil || findings != "" {
		t.Errorf("after the repetition a check finds %s (%v)", findings, err)
	}
	return true
}

// arm says who is to be killed where.
func (r *rig) arm(t *testing.T, c crash) {
	t.Helper()
	keeper, engine := fmt.Sprint(r.keeper), fmt.Sprint(r.cmd.Process.Pid)
	if strings.HasPrefix(string(c.point), "keeper.") {
		keeper = "0"
	} else {
		engine = "0"
	}
	who := map[victim]string{theEngine: engine, theKeeper: keeper, both: engine + " " + keeper}[c.who]
	if c.who == both && engine == "0" {
		who = keeper + " " + engine // who is at the point comes last
	}
	r.serial++
	text := fmt.Sprintf("%s:%d %s # %d", c.point, c.n, who, r.serial)
	if err := os.WriteFile(r.path("fault/arm.new"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(r.path("fault/arm.new"), r.path("fault/arm")); err != nil {
		t.Fatal(err)
	}
}

// recover waits for the victims' end and starts an engine again.
func (r *rig) recover(t *testing.T, c crash) {
	t.Helper()
	if c.who != theEngine {
		if !await(r.keeper) {
			t.Fatal("the keeper lives on")
		}
	}
	if c.who == theKeeper {
		old := r.keeper
		err := r.until(func() (bool, error) {
			pid, err := peer(r.path("run/keeper.sock"))
			if err != nil || pid == old {
				return false, nil // not there yet
			}
			r.keeper = pid
			return true, nil
		})
		if err != nil {
			t.Fatalf("no new keeper: %v", err)
		}
		return
	}
	if !await(r.cmd.Process.Pid) {
		t.Fatal("the engine lives on")
	}
	<-r.gone
	r.start(t)
}

// settle waits until the state is one of those that are allowed and a check finds
// nothing, and returns it.
func (r *rig) settle(t *testing.T, c crash, o outcome) string {
	t.Helper()
	allowed := []string{o.before, o.after}
	if c.who != theEngine {
		// With its last run lost, a container that fails has ended with 255 instead.
		allowed = append(allowed, lost(o.before), lost(o.after), strings.Replace(o.after, "exited 3", "exited 255", 1))
	}
	var state, findings string
	err := r.until(func() (bool, error) {
		var err error
		if state, err = r.observe(); err != nil || !slices.Contains(allowed, state) {
			return false, err
		}
		findings, err = r.check()
		return findings == "", err
	})
	if err != nil {
		t.Fatalf("%v: check finds %q, state:\n%s\nwant one of\n%s", err, findings, state, strings.Join(allowed, "\n--\n"))
	}
	return state
}

// check is what the engine's check finds.
func (r *rig) check() (string, error) {
	var report struct {
		Findings []struct{ Object, Problem string }
	}
	err := r.do("GET", "/berth/system/check", nil, &report)
	lines := map[string]bool{}
	for _, f := range report.Findings {
		lines[f.Object+": "+f.Problem] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(lines)), "; "), err
}
