package engine

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/docker/go-units"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// testImage is an image config with everything set.
func testImage() *dockerspec.DockerOCIImageConfig {
	return &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{
		User: "sailor", WorkingDir: "/srv", StopSignal: "SIGQUIT", Env: []string{"A=image", "B=image"},
		Entrypoint: []string{"/entry"}, Cmd: []string{"default"}, Labels: map[string]string{"a": "image", "b": "image"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}, "7000-7001/udp": {}}, Volumes: map[string]struct{}{"/data": {}},
	}}
}

func TestMergeCommand(t *testing.T) {
	for _, tc := range []struct {
		name            string
		entrypoint, cmd []string
		want            []string
	}{
		{"nothing", nil, nil, []string{"/entry", "default"}},
		{"command", nil, []string{"x", "y"}, []string{"/entry", "x", "y"}},
		{"entrypoint drops the image's command", []string{"/mine"}, nil, []string{"/mine"}},
		{"both", []string{"/mine"}, []string{"x"}, []string{"/mine", "x"}},
		{"cleared entrypoint", []string{""}, []string{"x"}, []string{"x"}},
		{"empty entrypoint keeps the image's command", []string{}, nil, []string{"default"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := mergeConfig(&container.Config{Entrypoint: tc.entrypoint, Cmd: tc.cmd}, testImage())
			if err != nil {
				t.Fatal(err)
			}
			file, args, err := commandLine(cfg)
			if got := append([]string{file}, args...); err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("command %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func TestNoCommandHasHint(t *testing.T) {
	_, _, err := commandLine(&container.Config{})
	if !errors.Is(err, errdefs.ErrInvalid) || errdefs.Hint(err) == "" {
		t.Errorf("error %v, hint %q", err, errdefs.Hint(err))
	}
}

func TestMergeConfigJoinsPerKey(t *testing.T) {
	req := &container.Config{
		Env: []string{"B=mine", "C=mine"}, Labels: map[string]string{"b": "mine", "c": "mine"},
		ExposedPorts: network.PortSet{network.MustParsePort("443/tcp"): {}}, Volumes: map[string]struct{}{"/more": {}},
	}
	cfg, err := mergeConfig(req, testImage())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"B=mine", "C=mine", "A=image"}; !slices.Equal(cfg.Env, want) {
		t.Errorf("env %q", cfg.Env)
	}
	if want := map[string]string{"a": "image", "b": "mine", "c": "mine"}; !reflect.DeepEqual(cfg.Labels, want) {
		t.Errorf("labels %v", cfg.Labels)
	}
	for _, p := range []string{"443/tcp", "80/tcp", "7000/udp", "7001/udp"} {
		if _, ok := cfg.ExposedPorts[network.MustParsePort(p)]; !ok {
			t.Errorf("port %s is missing", p)
		}
	}
	if len(cfg.ExposedPorts) != 4 || len(cfg.Volumes) != 2 || cfg.User != "sailor" || cfg.WorkingDir != "/srv" || cfg.StopSignal != "SIGQUIT" {
		t.Errorf("merged %+v", cfg)
	}
	if len(req.ExposedPorts) != 1 || len(req.Volumes) != 1 || len(req.Labels) != 2 {
		t.Error("the request was changed")
	}
}

func TestParseBind(t *testing.T) {
	for raw, want := range map[string]string{
		"/src:/dst":           "bind /src /dst rw rprivate",
		"/src/../x:/dst/:ro":  "bind /x /dst ro rprivate",
		"/src:/dst:ro,rslave": "bind /src /dst ro rslave",
		"/dst":                "volume  /dst rw ",
		"/src:/dst:rw,z":      "bind /src /dst rw rprivate",
		"data:/dst":           "volume  /dst rw ",
		"data:/dst:ro,nocopy": "volume  /dst ro ",
		"data:/dst:rslave":    "invalid",
		"d:/dst":              "invalid",
		"./data:/dst":         "invalid",
		"/src:/dst:nocopy":    "invalid",
		"/src:dst":            "invalid",
		"/src:/":              "invalid",
		"/src:/dst:wild":      "invalid",
		"/a:/b:ro:more":       "invalid",
		":/dst":               "invalid",
	} {
		m, err := parseBind(raw)
		got := strings.Join([]string{string(m.Type), m.Source, m.Destination, map[bool]string{true: "rw", false: "ro"}[m.RW], string(m.Propagation)}, " ")
		switch {
		case errors.Is(err, errdefs.ErrUnsupported):
			got = "unsupported"
		case errors.Is(err, errdefs.ErrInvalid):
			got = "invalid"
		}
		if got != want {
			t.Errorf("%s: %s, want %s (%v)", raw, got, want, err)
		}
	}
}

func TestParseMountsOrderAndDuplicates(t *testing.T) {
	cfg := &container.Config{Volumes: map[string]struct{}{"/data": {}, "/covered": {}, "/tmpfs": {}}}
	hc := &container.HostConfig{
		Binds: []string{"/b:/z/inner", "/a:/z"}, Tmpfs: map[string]string{"/tmpfs": ""},
		Mounts: []mount.Mount{{Type: mount.TypeBind, Source: "/", Target: "/covered", ReadOnly: true}},
	}
	list, err := parseMounts(cfg, hc, nil)
	if err != nil {
		t.Fatal(err)
	}
	var dests []string
	for _, m := range list {
		dests = append(dests, m.Destination)
	}
	if want := []string{"/covered", "/data", "/z", "/z/inner"}; !slices.Equal(dests, want) {
		t.Errorf("destinations %v, want %v", dests, want)
	}
	hc.Tmpfs["/z"] = ""
	if _, err := parseMounts(cfg, hc, nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("duplicate mount point: %v", err)
	}
	hc = &container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeBind, Source: "/no/such", Target: "/x"}}}
	if _, err := parseMounts(cfg, hc, nil); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("missing --mount source: %v", err)
	}
}

func TestMergeTmpfsOptions(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "noexec,nosuid,nodev",
		"exec,size=64m,mode=1777":  "nosuid,nodev,exec,size=64m,mode=1777",
		"size=1m,size=2m":          "noexec,nosuid,nodev,size=2m",
		"ro,rw":                    "noexec,nosuid,nodev,rw",
		"size=1m,context=system_u": "invalid",
		"noexec=1":                 "invalid",
		"size":                     "invalid",
	} {
		got, err := mergeTmpfsOptions(strings.Split(in, ","))
		text := strings.Join(got, ",")
		if errors.Is(err, errdefs.ErrInvalid) {
			text = "invalid"
		}
		if text != want {
			t.Errorf("%q: %s, want %s", in, text, want)
		}
	}
}

// testHost is a host that has everything.
func testHost() *hostFacts {
	h := &hostFacts{
		caps: append(slices.Clone(defaultCaps), "CAP_NET_ADMIN", "CAP_SYS_ADMIN"), raiseLimits: true, rlimits: map[string]uint64{},
		controllers: map[string]bool{}, swapLimit: true, seccomp: true, cpus: 4, memTotal: 8 << 30,
		sysctls: map[string]bool{sysctlPing: true, sysctlPorts: true},
	}
	for _, c := range []string{"memory", "cpu", "cpuset", "pids", "blkio"} {
		h.controllers[c] = true
	}
	for name := range rlimitNumbers {
		h.rlimits[name] = 4096
	}
	return h
}

func TestCheckResources(t *testing.T) {
	limit := func(n int64) *int64 { return &n }
	for _, tc := range []struct {
		name string
		r    container.Resources
		want string // part of the error; "" accepts
	}{
		{"nothing", container.Resources{}, ""},
		{"below six megabytes", container.Resources{Memory: 6<<20 - 1}, "minimum memory limit allowed is 6MB"},
		{"six megabytes", container.Resources{Memory: 6 << 20}, ""},
		{"swap below memory", container.Resources{Memory: 64 << 20, MemorySwap: 32 << 20}, "memoryswap"},
		{"swap without memory", container.Resources{MemorySwap: 32 << 20}, "needs a memory limit"},
		{"unlimited swap", container.Resources{Memory: 64 << 20, MemorySwap: -1}, ""},
		{"reservation above limit", container.Resources{Memory: 64 << 20, MemoryReservation: 65 << 20}, "reservation"},
		{"too many cpus", container.Resources{NanoCPUs: 5e9}, "only 4 CPUs"},
		{"cpus and quota", container.Resources{NanoCPUs: 1e9, CPUQuota: 5000}, "conflicting"},
		{"short period", container.Resources{CPUPeriod: 999}, "1ms"},
		{"cpuset", container.Resources{CpusetCpus: "0-1,3"}, ""},
		{"cpuset beyond", container.Resources{CpusetCpus: "0-4"}, "not available"},
		{"cpuset backwards", container.Resources{CpusetCpus: "3-1"}, "backwards"},
		{"pids", container.Resources{PidsLimit: limit(-1)}, ""},
		{"blkio weight", container.Resources{BlkioWeight: 5}, "10 to 1000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := checkResources(&tc.r, testHost(), false)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestResourcesWithoutControllers(t *testing.T) {
	h := testHost()
	h.controllers = map[string]bool{}
	n := int64(5)
	r := container.Resources{Memory: 64 << 20, NanoCPUs: 1e9, PidsLimit: &n, CpusetCpus: "0", BlkioWeight: 100}
	warnings, err := checkResources(&r, h, false)
	if err != nil || len(warnings) != 5 {
		t.Errorf("warnings %q, error %v", warnings, err)
	}
	if r.Memory != 0 || r.NanoCPUs != 0 || r.PidsLimit != nil || r.CpusetCpus != "" || r.BlkioWeight != 0 {
		t.Errorf("limits were not discarded: %+v", r)
	}
}

func TestUlimitsAreClampedWithWarning(t *testing.T) {
	h := testHost()
	h.raiseLimits = false
	list, warnings, err := h.checkUlimits([]*units.Ulimit{{Name: "nofile", Soft: 8192, Hard: 9000}, {Name: "core", Soft: 0, Hard: 0}, {Name: "nproc", Soft: -1, Hard: -1}})
	if err != nil || len(warnings) != 2 {
		t.Fatalf("warnings %q, error %v", warnings, err)
	}
	if list[0].Hard != 4096 || list[0].Soft != 4096 || list[1].Hard != 0 || list[2].Hard != 4096 {
		t.Errorf("clamped to %v %v %v", list[0], list[1], list[2])
	}
	for _, bad := range []*units.Ulimit{{Name: "nofiles"}, {Name: "nofile", Soft: 2, Hard: 1}} {
		if _, _, err := h.checkUlimits([]*units.Ulimit{bad}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestUnsupportedIsNamed(t *testing.T) {
	for flag, hc := range map[string]*container.HostConfig{
		"--link":          {Links: []string{"x"}},
		"--volume-driver": {VolumeDriver: "nfs"},
		"--runtime":       {Runtime: "kata"},
	} {
		if hc.Runtime == "" {
			hc.Runtime = runtimeName
		}
		if err := refuseHostConfig(hc); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
