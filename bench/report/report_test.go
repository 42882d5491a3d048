package report

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	table := table{head: []string{"", "wall ms", "×"}}
	table.add("berth-oci", "4.50", "1")
	table.add("crun", "missing")
	want := `|           | wall ms | × |
|-----------|--------:|--:|
| berth-oci |    4.50 | 1 |
| crun      | missing |   |
`
	if got := table.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.666: "0.67", 9.99: "9.99", 9.996: "10.0", 11.34: "11.3", 99.96: "100", 1234.5: "1234"} {
		if got := figure(v); got != want {
			t.Errorf("figure(%v) = %q, want %q", v, got, want)
		}
	}
}

// timed is a Timing whose median wall time is ms.
func timed(kind, name, loop, candidate string, ms float64) Timing {
	wall := []float64{ms - 1, ms, ms + 1}
	return Timing{
		Kind: kind, Case: name, Loop: loop, Candidate: candidate, WallMS: wall, CPUMS: wall, UserMS: wall, SystemMS: wall,
		PeakKiB: []float64{4096}, Faults: []float64{400}, Switches: []float64{20},
	}
}

func example() *Results {
	return &Results{
		Machine: Machine{CPU: "A <fast> & quiet CPU", CPUs: 2, Kernel: "6.18", LoadAtBegin: "0.1 0.2 0.3", Begin: time.Unix(0, 0), End: time.Unix(60, 0)},
		Programs: []Program{
			{Name: BerthRuntime, Kind: Runtimes, Version: "1", Bytes: 5 << 20},
			{Name: "crun", Kind: Runtimes, Version: "1.8.1", Bytes: 1 << 19},
			{Name: "runc", Kind: Runtimes, Missing: "not installed"},
			{Name: BerthEngine, Kind: Engines, Version: "1"},
			{Name: "podman", Kind: Engines, Version: "4.3.1"},
		},
		Timings: []Timing{
			timed(Runtimes, "run", Tight, BerthRuntime, 5), timed(Runtimes, "run", Tight, "crun", 10), timed(Runtimes, "run", Tight, "a process", 1.5),
			timed(Runtimes, "create, default spec", Tight, BerthRuntime, 3), // a step: in the tables only
			{Kind: Runtimes, Case: "create, default spec", Loop: Tight, Candidate: BerthKeeper, WallMS: []float64{2}, CPUMS: []float64{2}},
			timed(Runtimes, "run", Paced, BerthRuntime, 4), timed(Runtimes, "run", Paced, "crun", 12),
			timed(Engines, "run --network none", Tight, BerthEngine, 20), timed(Engines, "run --network none", Tight, "podman", 150),
			timed(Snapshots, "load", Tight, DefaultSnapshotter, 1000), timed(Snapshots, "load", Tight, "native", 800),
		},
		Throughput: []Throughput{
			{BerthRuntime, 8, []float64{300, 310, 320}, []float64{5}},
			{"crun", 8, []float64{150, 155, 160}, []float64{7}},
		},
		Memory:       []Memory{{BerthEngine, 50, map[string]int64{"berthd": 20480, "berth-oci": 10240}, map[string]int64{"berthd": 21480, "berth-oci": 12240}}},
		Snapshotters: []Snapshotter{{DefaultSnapshotter, 1 << 20, 20}, {"native", 1 << 20, 512 << 10}},
		Notes:        []string{"crun does not see the cgroup2 mount"},
	}
}

func TestMarkdown(t *testing.T) {
	var b strings.Builder
	if err := example().WriteMarkdown(&b, true); err != nil {
		t.Fatal(err)
	}
	// Spaces only align.
	text := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{
		"![Time from the command to its end, of Berth and its peers](start.svg)",
		"| create, default spec, in the keeper | 2.00 | – |",
		"| | berth-oci | crun | Berth/crun | paced | CPU | |---", // "a process" is no peer
		"| run | 5.00 | 10.0 | 0.50 (0.",
		"| 0.33 (0.",
		"| run --network none | 20.0 | 150 | 0.13 (0.",
		"| crun | 10.0 | 9.00 | 2.00 | 10.0 | 12.0 | 11.0 | 3.00 | 12.0 | 4096 | 400 | 20 | 3+3 |",
		"| runc (missing: not installed) |",
		"| berth-oci | 310 | 300 | 320 | 1.00 | 5.00 |",
		"| crun | 155 | 150 | 160 | 2.00 | 7.00 |",
		"| berth | 60.0 | 30.0 | 50 | berth-oci 10240, berthd 20480 | berth-oci 12240, berthd 21480 |",
		"| native | 800 | 799 | 0.80 | 800 | 3 |",
		"| native | 1024 | 512 |",
		"Load average (1, 5, 15 minutes) 0.1 0.2 0.3 before",
		"- crun does not see the cgroup2 mount",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}

func TestSVG(t *testing.T) {
	var b strings.Builder
	drawn, err := example().WriteSVG(&b)
	if err != nil || !drawn {
		t.Fatalf("drawn %v, error %v", drawn, err)
	}
	bars, texts := 0, []string{}
	for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, b.String())
		}
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name.Local == "rect" {
				bars++
			}
		case xml.CharData:
			texts = append(texts, string(token))
		}
	}
	if bars != 1+4 {
		t.Errorf("%d rectangles, want the background and four bars", bars)
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{"crun", "10.0 (2.0×)", "150 (7.5×)", "A <fast> & quiet CPU"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in the texts\n%s", want, all)
		}
	}
	if strings.Contains(all, "a process") {
		t.Error("the mere process is drawn")
	}
}

func TestSVGOfNothing(t *testing.T) {
	var b strings.Builder
	if drawn, err := (&Results{}).WriteSVG(&b); drawn || err != nil || b.Len() > 0 {
		t.Errorf("drawn %v, error %v, %d bytes", drawn, err, b.Len())
	}
}

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	want := example()
	if err := want.WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	got := new(Results)
	if err := json.Unmarshal(raw, got); err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	got.Machine.Begin, got.Machine.End = want.Machine.Begin, want.Machine.End
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
	if text := string(raw); !strings.Contains(text, `"wall_ms": [4,5,6],`) {
		t.Errorf("lists of numbers are not on one line:\n%s", text)
	}
	for _, name := range []string{"results.md", Plot} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
