package resctrl

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

func TestPlans(t *testing.T) {
	for _, c := range []struct {
		name string
		rdt  specs.LinuxIntelRdt
		want Plan
	}{
		{"nothing said", specs.LinuxIntelRdt{}, Plan{Class: "c1", Own: true}},
		{"a class", specs.LinuxIntelRdt{ClosID: "gold"}, Plan{Class: "gold"}},
		{"the default class", specs.LinuxIntelRdt{ClosID: "/"}, Plan{}},
		{"monitoring", specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true}, Plan{Class: "gold", Monitor: "c1"}},
		{"the order of the shares", specs.LinuxIntelRdt{Schemata: []string{"L2:0=3", "L3:0=f"}, MemBwSchema: "MB:0=50", L3CacheSchema: "L3:0=ff"},
			Plan{Class: "c1", Own: true, Schemata: []string{"L3:0=ff", "MB:0=50", "L2:0=3", "L3:0=f"}}},
	} {
		got, err := New(&c.rdt, "c1")
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s: %v, %+v, want %+v", c.name, err, got, c.want)
		}
	}
	for field, rdt := range map[string]specs.LinuxIntelRdt{
		`closID "."`:      {ClosID: "."},
		`closID ".."`:     {ClosID: ".."},
		`closID "a/b"`:    {ClosID: "a/b"},
		`closID "../../x`: {ClosID: "../../x"},
		"memBwSchema":     {MemBwSchema: "L3:0=ff"},
		"schemata":        {Schemata: []string{"L3:0=ff\nMB:0=10"}},
	} {
		if _, err := New(&rdt, "c1"); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestSharesAreCompared(t *testing.T) {
	const have = "    MB:0=100;1= 70\n    L3:0=00ff;1=C0\n"
	for want, same := range map[string]bool{
		"L3:0=ff":           true,
		"L3:1=c0;0=0ff":     true,
		"MB:1=70;0=0100":    true,
		"L3:0=fe":           false,
		"L3:2=ff":           false,
		"L2:0=ff":           false,
		"MB:0=10\nL3:0=ff":  false,
		"MB:0=100\nL3:0=FF": true,
	} {
		err := compare(strings.Split(want, "\n"), have)
		if (err == nil) != same || err != nil && !errors.Is(err, errdefs.ErrConflict) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// What is made and removed are directories; their files are the kernel's, and
// an ordinary directory has none: setting shares fails, which must leave nothing.
func TestDirectories(t *testing.T) {
	root := t.TempDir()
	names := func() string {
		var all []string
		if err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			all = append(all, strings.TrimPrefix(path, root))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return strings.Join(all, " ")
	}
	made := func(p Plan) *Group {
		t.Helper()
		g, err := p.Make(root)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	own := made(Plan{Class: "c1", Own: true})
	if names() != " /c1" || !own.Made || !reflect.DeepEqual(own.Tasks(), []string{root + "/c1/tasks"}) {
		t.Errorf("%s %+v", names(), own)
	}
	for _, p := range []Plan{
		{Class: "c1", Own: true},                          // somebody else's
		{Class: "missing"},                                // to be there beforehand
		{Class: "gold", Schemata: []string{"L3:0=ff"}},    // nothing to write to
		{Class: "c2", Own: true, Schemata: []string{"x"}}, // the same
		{Class: "c3", Own: true, Monitor: "c3"},           // no place for monitoring groups
	} {
		if g, err := p.Make(root); err == nil {
			t.Errorf("%+v was made: %+v", p, g)
		}
		if names() != " /c1" {
			t.Errorf("%+v has left %s", p, names())
		}
	}
	if err := own.Remove(); err != nil || names() != "" {
		t.Errorf("%v, %s is left", err, names())
	}
	if err := own.Remove(); err != nil { // a second try after half a removal
		t.Error(err)
	}

	if err := os.MkdirAll(filepath.Join(root, "gold/mon_groups"), 0o755); err != nil {
		t.Fatal(err)
	}
	shared := made(Plan{Class: "gold", Monitor: "c1"})
	if want := []string{root + "/gold/tasks", root + "/gold/mon_groups/c1/tasks"}; shared.Made || !reflect.DeepEqual(shared.Tasks(), want) {
		t.Errorf("%+v", shared)
	}
	if err := shared.Remove(); err != nil || names() != " /gold /gold/mon_groups" {
		t.Errorf("%v, left: %s", err, names())
	}
}

func TestRootIsAResctrl(t *testing.T) {
	root, err := Root()
	if err != nil {
		if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "needs resctrl") || errdefs.Hint(err) == "" {
			t.Errorf("%v (%s)", err, errdefs.Hint(err))
		}
		return
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil || st.Type != unix.RDTGROUP_SUPER_MAGIC {
		t.Errorf("%s: %v, type %#x", root, err, st.Type)
	}
}
