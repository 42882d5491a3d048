package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
)

// now is a fixed present; an hour ago is what the samples are.
var now = time.Unix(1_700_000_000, 0)

const hourAgo = 1_700_000_000 - 3600

func rendered(t *testing.T, fn func(w *bytes.Buffer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := fn(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func check(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

func sample() *container.Summary {
	return &container.Summary{
		ID:    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		Names: []string{"/other/link", "/web"}, Image: "docker.io/library/nginx:1@sha256:0000", ImageID: "sha256:ffff",
		Command: "nginx -g 'daemon off;' and more", Created: hourAgo, State: "running", Status: "Up 59 minutes",
		Labels: map[string]string{"b": "2", "a.b-c": "1"}, SizeRw: 1500, SizeRootFs: 2_000_000,
		Ports:  []container.PortSummary{{IP: netip.MustParseAddr("0.0.0.0"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"}},
		Mounts: []container.MountPoint{{Source: "/a/long/path/of/a/host", Driver: ""}, {Name: "vol", Driver: "local"}},
		NetworkSettings: &container.NetworkSettingsSummary{
			Networks: map[string]*network.EndpointSettings{"net": nil, "bridge": nil},
		},
	}
}

func TestContainerTable(t *testing.T) {
	got := rendered(t, func(w *bytes.Buffer) error {
		return Rows(w, "", ContainerTable+"\t{{.Size}}", ContainerHeader(), []Container{NewContainer(sample(), true, now)})
	})
	check(t, got, ""+
		"CONTAINER ID   IMAGE     COMMAND                  CREATED             STATUS          PORTS                  NAMES     SIZE\n"+
		"0123456789ab   nginx:1   \"nginx -g 'daemon of…\"   About an hour ago   Up 59 minutes   0.0.0.0:8080->80/tcp   web       1.5kB (virtual 2MB)\n")
}

func TestContainerFields(t *testing.T) {
	c := NewContainer(sample(), false, now)
	for field, pair := range map[string][2]string{
		"ID":       {c.ID, sample().ID},
		"Names":    {c.Names, "other/link,web"},
		"Image":    {c.Image, "docker.io/library/nginx:1@sha256:0000"},
		"Command":  {c.Command, `"nginx -g 'daemon off;' and more"`},
		"Labels":   {c.Labels, "a.b-c=1,b=2"},
		"Label":    {c.Label("b"), "2"},
		"Mounts":   {c.Mounts, "/a/long/path/of/a/host,vol"},
		"Local":    {c.LocalVolumes, "1"},
		"Networks": {c.Networks, "bridge,net"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %q, want %q", field, pair[0], pair[1])
		}
	}
	s := sample()
	s.Image = "sha256:ffff"
	if c := NewContainer(s, true, now); c.Image != "ffff" || c.Mounts != "/a/long/path/o…,vol" {
		t.Errorf("image %q, mounts %q", c.Image, c.Mounts)
	}
	s.Image = ""
	if c := NewContainer(s, true, now); c.Image != "<no image>" {
		t.Errorf("image %q", c.Image)
	}
}

func TestPorts(t *testing.T) {
	any4, any6, lo := netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::"), netip.MustParseAddr("127.0.0.1")
	for _, c := range []struct {
		ports []container.PortSummary
		want  string
	}{
		{nil, ""},
		{[]container.PortSummary{{PrivatePort: 80, Type: "tcp"}}, "80/tcp"},
		{[]container.PortSummary{{PrivatePort: 82, Type: "tcp"}, {PrivatePort: 80, Type: "tcp"}, {PrivatePort: 81, Type: "tcp"}}, "80-82/tcp"},
		{[]container.PortSummary{{PrivatePort: 80, Type: "tcp"}, {PrivatePort: 81, Type: "udp"}, {PrivatePort: 82, Type: "tcp"}}, "80/tcp, 81/udp, 82/tcp"},
		{[]container.PortSummary{
			{IP: any4, PrivatePort: 80, PublicPort: 80, Type: "tcp"}, {IP: any6, PrivatePort: 80, PublicPort: 80, Type: "tcp"},
			{IP: any4, PrivatePort: 81, PublicPort: 81, Type: "tcp"}, {IP: any6, PrivatePort: 81, PublicPort: 81, Type: "tcp"},
		}, "0.0.0.0:80-81->80-81/tcp, [::]:80-81->80-81/tcp"},
		{[]container.PortSummary{
			{PrivatePort: 443, Type: "tcp"}, {IP: lo, PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
		}, "443/tcp, 127.0.0.1:8080->80/tcp"},
	} {
		if got := Ports(c.ports); got != c.want {
			t.Errorf("%+v: %q, want %q", c.ports, got, c.want)
		}
	}
}

func TestFormats(t *testing.T) {
	rows := []Container{NewContainer(sample(), true, now)}
	for format, want := range map[string]string{
		"table":                    "ID\n",
		"table {{.Names}}\\tX":     "NAMES     X\nweb       X\n",
		"{{.Names}}":               "web\n",
		`{{.ID}}\t{{.State}}\n|`:   "0123456789ab\trunning\n|\n",
		`{{.Label "a.b-c"}}`:       "1\n",
		`table {{.Label "a.b-c"}}`: "b c\n1\n",
		"{{json .Names}}":          "\"web\"\n",
		`{{upper .State}} {{lower "AB"}} {{title "a bc"}}`: "RUNNING ab A Bc\n",
		`{{truncate .ID 3}}{{pad .State 1 2}}|`:            "012 running  |\n",
		`{{join (split .Labels ",") "+"}}`:                 "a.b-c=1+b=2\n",
		`table {{upper .Names}}`:                           "NAMES\nWEB\n",
	} {
		got := rendered(t, func(w *bytes.Buffer) error { return Rows(w, format, "ID", ContainerHeader(), rows) })
		if format == "table" {
			want = "ID\nID\n"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
	text := rendered(t, func(w *bytes.Buffer) error { return Rows(w, "json", "", nil, rows) })
	var fields map[string]string
	if err := json.Unmarshal([]byte(text), &fields); err != nil || fields["Names"] != "web" || strings.Count(text, "\n") != 1 {
		t.Errorf("JSON %s: %v", text, err)
	}
	for _, format := range []string{"{{", "{{.Nonsense}}", "{{nonsense}}", "table {{.Nonsense}}", `{{join 1 "x"}}`} {
		for _, rows := range [][]Container{rows, nil} {
			if err := Rows(&bytes.Buffer{}, format, "", ContainerHeader(), rows); err == nil || !strings.HasPrefix(err.Error(), "template parsing error") {
				t.Errorf("%s on %d rows: %v", format, len(rows), err)
			}
		}
	}
}

func TestImages(t *testing.T) {
	s := &image.Summary{
		ID: "sha256:0123456789abcdef", Created: hourAgo, Size: 5_555_555, SharedSize: -1, Containers: -1,
		RepoTags:    []string{"docker.io/library/a:1", "a:2", "localhost:5000/x/b:1"},
		RepoDigests: []string{"a@sha256:d1", "only@sha256:d2"},
	}
	got := rendered(t, func(w *bytes.Buffer) error {
		return Rows(w, "", ImageTable, ImageHeader(), NewImages(s, true, false, now))
	})
	check(t, got, ""+
		"REPOSITORY           TAG       IMAGE ID       CREATED             SIZE\n"+
		"a                    1         0123456789ab   About an hour ago   5.56MB\n"+
		"a                    2         0123456789ab   About an hour ago   5.56MB\n"+
		"localhost:5000/x/b   1         0123456789ab   About an hour ago   5.56MB\n"+
		"only                 <none>    0123456789ab   About an hour ago   5.56MB\n")
	got = rendered(t, func(w *bytes.Buffer) error {
		return Rows(w, "{{.Repository}}:{{.Tag}}@{{.Digest}}", "", ImageHeader(), NewImages(s, true, true, now))
	})
	check(t, got, "a:1@sha256:d1\na:2@sha256:d1\nlocalhost:5000/x/b:1@<none>\nonly:<none>@sha256:d2\n")
	for _, s := range []*image.Summary{{ID: "x"}, {ID: "x", RepoTags: []string{"<none>:<none>"}, RepoDigests: []string{"<none>@<none>"}}} {
		lines := NewImages(s, true, true, now)
		if len(lines) != 1 || lines[0].Repository != "<none>" || lines[0].Tag != "<none>" || lines[0].CreatedSince != "N/A" {
			t.Errorf("an image without a name: %+v", lines)
		}
	}
}

func TestHistory(t *testing.T) {
	h := &image.HistoryResponseItem{ID: "<missing>", Created: hourAgo, CreatedBy: "/bin/sh -c #(nop)\tCMD [\"a rather long command line\"]", Size: 1234, Comment: "c"}
	got := NewHistory(h, true, true, now)
	if got.CreatedBy != "/bin/sh -c #(nop) CMD [\"a rather long comman…" || got.Size != "1.23kB" || got.CreatedSince != "About an hour ago" || got.ID != "<missing>" {
		t.Errorf("%+v", got)
	}
	if got := NewHistory(h, false, false, now); got.Size != "1234" || !strings.Contains(got.CreatedSince, "T") || !strings.HasSuffix(got.CreatedBy, "]") {
		t.Errorf("%+v", got)
	}
}

func TestStats(t *testing.T) {
	s := &container.StatsResponse{
		ID: "0123456789abcdef", Name: "/web",
		CPUStats:    container.CPUStats{CPUUsage: container.CPUUsage{TotalUsage: 300}, SystemUsage: 2000, OnlineCPUs: 4},
		PreCPUStats: container.CPUStats{CPUUsage: container.CPUUsage{TotalUsage: 100}, SystemUsage: 1000},
		MemoryStats: container.MemoryStats{Usage: 40 << 20, Limit: 128 << 20, Stats: map[string]uint64{"inactive_file": 8 << 20}},
		Networks:    map[string]container.NetworkStats{"eth0": {RxBytes: 1000, TxBytes: 2000}, "eth1": {RxBytes: 500}},
		BlkioStats:  container.BlkioStats{IoServiceBytesRecursive: []container.BlkioStatEntry{{Op: "Read", Value: 10}, {Op: "write", Value: 20}, {Op: "Total", Value: 99}}},
		PidsStats:   container.PidsStats{Current: 3},
	}
	got := rendered(t, func(w *bytes.Buffer) error {
		return Rows(w, "", StatsTable, StatsHeader(), []Stats{NewStats("web", s, true), NoStats("gone")})
	})
	check(t, got, ""+
		"CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O       BLOCK I/O   PIDS\n"+
		"0123456789ab   web       80.00%    32MiB / 128MiB      25.00%    1.5kB / 2kB   10B / 20B   3\n"+
		"--             --        --        -- / --             --        --            --          --\n")
	for name, m := range map[string]container.MemoryStats{
		"v1":        {Usage: 100, Stats: map[string]uint64{"total_inactive_file": 30, "inactive_file": 1}},
		"v2":        {Usage: 100, Stats: map[string]uint64{"inactive_file": 30}},
		"all cache": {Usage: 70, Stats: map[string]uint64{"inactive_file": 80}},
		"no stats":  {Usage: 70},
	} {
		if got := memoryUsed(&m); got != 70 {
			t.Errorf("%s: %d bytes in use, want 70", name, got)
		}
	}
	s.PreCPUStats = s.CPUStats
	if got := cpuPercent(s); got != 0 {
		t.Errorf("an idle container uses %v%%", got)
	}
}

func TestEvent(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
	m := &events.Message{
		Type: "container", Action: "die", TimeNano: 1_700_000_000_000_000_001,
		Actor: events.Actor{ID: "abc", Attributes: map[string]string{"name": "web", "exitCode": "1"}},
	}
	check(t, rendered(t, func(w *bytes.Buffer) error { return Event(w, m) }),
		"2023-11-14T22:13:20.000000001Z container die abc (exitCode=1, name=web)\n")
	check(t, rendered(t, func(w *bytes.Buffer) error {
		return Event(w, &events.Message{Type: "image", Action: "pull", Time: 1_700_000_000, Actor: events.Actor{ID: "x"}})
	}), "2023-11-14T22:13:20.000000000Z image pull x\n")
}

func TestVersion(t *testing.T) {
	v := &Versions{Client: ClientVersion{Version: "1.2", APIVersion: "1.56", GoVersion: "go1", Os: "linux", Arch: "amd64"}}
	v.Server = &system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Berth"}, Version: "1.3", APIVersion: "1.56", MinAPIVersion: "1.24", Os: "linux", Arch: "arm64",
		Components: []system.ComponentVersion{{Name: "Engine", Version: "1.3"}, {Name: "keeper", Version: "7", Details: map[string]string{"GitCommit": "abc"}}},
	}
	check(t, rendered(t, func(w *bytes.Buffer) error { return Version(w, v) }), `Client:
 Version:           1.2
 API version:       1.56
 Go version:        go1
 OS/Arch:           linux/amd64

Server: Berth
 Engine:
  Version:          1.3
  API version:      1.56 (minimum version 1.24)
  OS/Arch:          linux/arm64
 keeper:
  Version:          7
  GitCommit:        abc
`)
}

func TestDiskUsage(t *testing.T) {
	fresh := &client.DiskUsage{DiskUsage: system.DiskUsage{
		ImageUsage:     &image.DiskUsage{TotalCount: 3, ActiveCount: 1, TotalSize: 1000, Reclaimable: 250},
		ContainerUsage: &container.DiskUsage{TotalCount: 2},
	}}
	old := &client.DiskUsage{
		LayersSize: 1000,
		Images:     []image.Summary{{Size: 800, SharedSize: 50, Containers: 1}, {Size: 300}, {Size: 1}},
		Containers: []container.Summary{{}, {}},
	}
	for name, u := range map[string]*client.DiskUsage{"API 1.52": fresh, "before": old} {
		got := rendered(t, func(w *bytes.Buffer) error {
			return Rows(w, "", DiskUsageTable, DiskUsageHeader(), NewDiskUsage(u))
		})
		want := "TYPE         TOTAL     ACTIVE    SIZE      RECLAIMABLE\nImages       3         1         1kB       250B (25%)\nContainers   2         0         0B        0B\n"
		if got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
	d := NewDiskUsageDetails(old, true, now)
	if len(d.Images) != 3 || len(d.Containers) != 2 {
		t.Errorf("%d images, %d containers", len(d.Images), len(d.Containers))
	}
}

func TestInfo(t *testing.T) {
	got := rendered(t, func(w *bytes.Buffer) error {
		return Info(w, "1.2", &system.Info{
			Containers: 3, ContainersRunning: 2, ContainersStopped: 1, Images: 4, ServerVersion: "1.3", Driver: "overlayfs",
			DriverStatus: [][2]string{{"Backing", "ext4"}}, CgroupVersion: "2", NCPU: 2, MemTotal: 1 << 30,
			SecurityOptions: []string{"name=landlock,abi=7", "name=seccomp,profile=builtin", "name=cgroupns"}, Labels: []string{"a=b"},
		})
	})
	for _, want := range []string{
		"Server:\n Containers: 3\n  Running: 2\n  Paused: 0\n  Stopped: 1\n Images: 4\n",
		" Storage Driver: overlayfs\n  Backing: ext4\n", " Total Memory: 1GiB\n",
		" Security Options:\n  landlock\n   ABI: 7\n  seccomp\n   Profile: builtin\n  cgroupns\n", " Labels:\n  a=b\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for line := range strings.Lines(got) {
		if strings.HasSuffix(line, ": \n") {
			t.Errorf("a line without a value: %q", line)
		}
	}
}

func TestNoLatePanic(t *testing.T) {
	failing := writer(func([]byte) (int, error) { return 0, errors.New("disk full") })
	if err := Rows(failing, "", ContainerTable, ContainerHeader(), []Container{NewContainer(sample(), true, now)}); err == nil {
		t.Error("a table that could not be written is taken for written")
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
