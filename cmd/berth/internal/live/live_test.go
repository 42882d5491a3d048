package live

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// two are overviews two seconds apart.
func two() (now, before *client.Overview) {
	start := noon.Add(-time.Hour)
	use := func(name string, cpu, memory, limit, disk uint64) client.ContainerUse {
		return client.ContainerUse{ID: name, Name: name, Image: "box", Status: "running", StartedAt: start, CPU: cpu, Memory: memory, MemoryLimit: limit, ReadBytes: disk}
	}
	before = &client.Overview{Time: noon, MemoryTotal: 1000, Containers: []client.ContainerUse{
		use("a", 1e9, 10, 100, 0), use("b", 1e9, 10, 20, 0), use("again", 9e9, 1, 0, 0),
	}}
	again := use("again", 1e9, 1, 0, 0)
	again.StartedAt = noon.Add(time.Second)
	now = &client.Overview{Time: noon.Add(2 * time.Second), MemoryTotal: 1000, Containers: []client.ContainerUse{
		use("a", 2e9, 10, 100, 0), use("b", 1e9, 10, 20, 4096), again, use("new", 5e9, 1, 0, 0),
		{ID: "x", Name: "x", Image: "other", Status: "exited", ExitCode: 3},
	}}
	return now, before
}

// TestRates: what was started anew, or is new, has none yet.
func TestRates(t *testing.T) {
	list := rows(two())
	for i, want := range []struct{ cpu, disk float64 }{{50, 0}, {0, 2048}, {-1, -1}, {-1, -1}, {-1, -1}} {
		if list[i].cpu != want.cpu || list[i].disk != want.disk {
			t.Errorf("%s: cpu %v, disk %v, want %v", list[i].Name, list[i].cpu, list[i].disk, want)
		}
	}
}

func TestArrange(t *testing.T) {
	now, before := two()
	for _, test := range []struct {
		key                byte
		backwards, stopped bool
		filter, want       string
	}{
		{'c', false, false, "", "a b again new"}, {'c', true, false, "", "again new b a"}, {'m', false, false, "", "b a again new"},
		{'d', false, false, "", "b a again new"}, {'n', true, true, "", "new b again a x"}, {'n', false, true, "other", "x"},
		{'n', false, false, "a", "a again"},
	} {
		by := orders[slices.IndexFunc(orders, func(o order) bool { return o.key == test.key })]
		var got []string
		for _, r := range arrange(rows(now, before), by, test.backwards, test.stopped, test.filter, now.MemoryTotal) {
			got = append(got, r.Name)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
}

// TestFit: what is chosen fills no more than the screen, at any width.
func TestFit(t *testing.T) {
	for width := 1; width < 300; width++ {
		chosen, name := fit(width)
		sum := 1 + name
		for _, c := range chosen {
			sum += 1 + c.width
		}
		if width >= 45 && sum != width {
			t.Errorf("width %d: %d used by %d columns", width, sum, len(chosen))
		}
	}
	if chosen, name := fit(80); name < leastName || len(chosen) < 8 {
		t.Errorf("80 characters have %d columns and names of %d", len(chosen), name)
	}
}

func TestDecode(t *testing.T) {
	for typed, want := range map[string][]key{
		"q": {'q'}, "\x1b": {keyEscape}, "\x1b[A\x1b[6~x": {keyUp, keyPageDown, 'x'}, "\x1bOB": {keyDown}, "\x1b[1;5C": {keyUnknown},
		"é\x7f\r": {'é', keyBackspace, keyEnter}, "\x1b\x1b": {keyEscape, keyEscape}, "\x1b[": {keyUnknown},
	} {
		if got := decode([]byte(typed)); !slices.Equal(got, want) {
			t.Errorf("%q is %v, want %v", typed, got, want)
		}
	}
}

// TestPrintable: what a container prints cannot reach the terminal.
func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"plain é": "plain é", "a\x1b[2Jb": "ab", "a\x1b]0;title\x07b": "ab", "a\x1b]52;c;x\x1b\\b": "ab", "a\x1b[31": "a", "a\rb\x07": "ab",
		"a\tb": "a       b", "\x9b2J": "2J", "\xff": "", "\x1bcx": "x", "\u202ex": "x",
	} {
		if got := printable(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestFigures(t *testing.T) {
	for n, want := range map[float64]string{0: "0B", 999: "999B", 1000: "1.0K", 1 << 20: "1.0M", 123 << 20: "123M", 1536 << 20: "1.5G"} {
		if got := short(n); got != want {
			t.Errorf("%v is %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{59 * time.Second: "59s", 90 * time.Second: "1m", 5 * time.Hour: "5h", 240 * time.Hour: "10d", -1: "0s"} {
		if got := brief(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// TestPager: the end is followed until the user moves away from it.
func TestPager(t *testing.T) {
	p := &pager{follow: true}
	for range 100 {
		p.add("line")
	}
	if p.draw(12); p.top != 90 {
		t.Errorf("top %d", p.top)
	}
	p.key(keyUp, 12)
	p.add("more")
	if p.draw(12); p.top != 89 || p.follow {
		t.Errorf("top %d after one up", p.top)
	}
	if p.key(keyEnd, 12); !p.follow {
		t.Error("the end is not followed")
	}
	for range pagerKept {
		p.add("flood")
	}
	if len(p.lines) != pagerKept {
		t.Errorf("%d lines are kept", len(p.lines))
	}
}
