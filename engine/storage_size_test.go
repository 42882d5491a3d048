package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/quota"
	"github.com/berth-containers/berth/kernel/seccomp"
	"github.com/moby/moby/api/types/container"
	volumetypes "github.com/moby/moby/api/types/volume"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestStorageOptions(t *testing.T) {
	for text, want := range map[string]int64{"10m": 10 << 20, "1g": 1 << 30, "0": 0, "2097152": 2 << 20} {
		if got, err := storageSize(map[string]string{"size": text}); err != nil || got != want {
			t.Errorf("size=%s: %d, %v", text, got, err)
		}
	}
	for _, bad := range []map[string]string{{"size": "much"}, {"size": "-1"}, {"size": "1k"}, {"sise": "1g"}, {"size": ""}} {
		if err := CheckStorage(bad); !errors.Is(err, errdefs.ErrInvalid) || errdefs.Hint(err) == "" {
			t.Errorf("%v: %v", bad, err)
		}
	}
	e := &Engine{cfg: Config{StorageOptions: map[string]string{"size": "10g"}}}
	if got := e.storageOptions(nil)["size"]; got != "10g" {
		t.Errorf("without options a container gets size=%s", got)
	}
	if got := e.storageOptions(map[string]string{"size": "0"})["size"]; got != "0" {
		t.Errorf("a container that asks for size=0 gets size=%s", got)
	}
}

// TestStorageSizeUnsupported: where the file system cannot, the error names it
// and the remedy, and nothing is left. (The tests' engines are on a tmpfs.)
func TestStorageSizeUnsupported(t *testing.T) {
	te := newTestEngine(t)
	req := request("true")
	req.HostConfig.StorageOpt = map[string]string{"size": "10m"}
	_, err := te.ContainerCreate(t.Context(), "", req, nil)
	if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "tmpfs") || !strings.Contains(errdefs.Hint(err), "prjquota") {
		t.Errorf("create: %v; %s", err, errdefs.Hint(err))
	}
	_, err = te.VolumeCreate(t.Context(), &volumetypes.CreateRequest{Name: "small", DriverOpts: map[string]string{"size": "1m"}})
	if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(errdefs.Hint(err), "prjquota") {
		t.Errorf("volume: %v; %s", err, errdefs.Hint(err))
	}
	if list := te.volumes.List(); len(list) > 0 {
		t.Errorf("volumes are left: %v", list)
	}
	cfg := testConfig(te.dir)
	cfg.StateRoot, cfg.StorageOptions = filepath.Join(te.dir, "other"), map[string]string{"size": "1g"}
	if e, err := Open(t.Context(), cfg); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "configuration") {
		t.Errorf("an engine with such a configuration: %v", err)
		if e != nil {
			e.Close()
		}
	}
	info, err := te.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range [][2]string{{"Supports d_type", "true"}, {"Supports size quota", "false"}} {
		found := false
		for _, pair := range info.DriverStatus {
			found = found || pair == want
		}
		if !found {
			t.Errorf("info lacks %v: %v", want, info.DriverStatus)
		}
	}
}

// TestGuardQuota: the filter refuses what moves a file to another project and
// nothing else.
func TestGuardQuota(t *testing.T) {
	spec := capsSpec(defaultCaps)
	p, err := seccompProfile(spec, &securityOptions{}, false, &hostFacts{seccomp: true})
	if err != nil {
		t.Fatal(err)
	}
	guardQuota(p)
	if _, err := seccomp.Compile(p); err != nil {
		t.Fatal(err)
	}
	allowed := 0
	for _, r := range p.Syscalls {
		for _, name := range r.Names {
			if name == "ioctl" && r.Action == specs.ActAllow {
				allowed++
				if len(r.Args) != 1 {
					t.Error("ioctl is allowed whatever its request")
				}
			}
		}
	}
	if allowed != 1 {
		t.Errorf("%d rules allow ioctl", allowed)
	}
}

// quotaEngine is an engine on a new xfs with project quotas. Where the kernel
// takes that xfs without them only, the test is skipped.
func quotaEngine(t *testing.T) *testEngine {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		t.Skip("needs the package xfsprogs")
	}
	dir := t.TempDir()
	img, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	f, err := os.Create(img)
	if err == nil {
		err = errors.Join(f.Truncate(320<<20), f.Close(), os.Mkdir(at, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.xfs", "-q", img).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.xfs: %v\n%s", err, out)
	}
	mount := func(options string) ([]byte, error) {
		return exec.Command("mount", "-o", options, img, at).CombinedOutput()
	}
	out, err := mount("loop,prjquota")
	t.Cleanup(func() { // after the engine's end
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	if err != nil {
		if out, err := mount("loop"); err != nil {
			t.Fatalf("mount: %v\n%s", err, out)
		}
		t.Skipf("this kernel has no quotas of xfs: %s", out)
	}
	te := &testEngine{t: t, dir: filepath.Join(at, "q")}
	if err := os.Mkdir(te.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := quota.Open(te.dir); err != nil { // xfs may mount and warn
		if strings.Contains(err.Error(), unix.ENOSYS.Error()) {
			t.Skipf("this kernel has no quotas of xfs: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(te.end)
	te.open()
	if _, err := te.ImageImport(t.Context(), busyboxTar(t), ImageImportOptions{Ref: "busybox", Changes: []string{"CMD sh"}}); err != nil {
		t.Fatal(err)
	}
	return te
}

// sized is a request for a container with a limit, with the applets it needs.
func sized(size string, cmd ...string) *container.CreateRequest {
	req := request(cmd...)
	req.HostConfig.StorageOpt = map[string]string{"size": size}
	return req
}

// fillIt writes until it is refused, and shows how much went in and how much
// there is.
const fillIt = `busybox dd if=/dev/zero of=/big bs=64k count=128 2>/dev/null || echo refused; busybox stat -c %s /big; busybox df -k / | tail -n 1`

func TestStorageSize(t *testing.T) {
	te := quotaEngine(t)
	id := te.create("small", sized("4m", "sh", "-c", fillIt))
	view, err := te.ContainerInspect(t.Context(), id, false)
	if err != nil || view.HostConfig.StorageOpt["size"] != "4m" {
		t.Errorf("inspect shows %v, %v", view.HostConfig.StorageOpt, err)
	}
	te.checkFull(id)
	// Another engine, and a quota that somebody has taken away: it is set again.
	if err := te.Close(); err != nil {
		t.Fatal(err)
	}
	te.breakQuotas(id)
	te.open()
	te.checkFindings("its files are not limited to 4194304 bytes", "there are none that belong to it")
	te.checkFull(id)
	te.checkEscape()
	te.checkSizedVolume()
	te.checkSizedDefault()
	if err := te.ContainerRemove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	te.checkFindings()
}

// checkFull starts a container of 4 MiB that fills its files.
func (te *testEngine) checkFull(id string) {
	te.t.Helper()
	if err := te.ContainerStart(te.t.Context(), id); err != nil {
		te.t.Fatal(err)
	}
	te.wait(id, container.WaitConditionNotRunning)
	out, _ := te.logs(id)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := strings.Fields(lines[len(lines)-1])
	if !strings.Contains(out, "refused") || len(last) < 4 || last[1] != "4096" || last[3] != "0" {
		te.t.Errorf("in 4 MiB: %q", out)
	}
}

// breakQuotas does what people and crashes do: it takes a container's limit away,
// leaves a limit behind whose directory is gone, and a directory half made.
func (te *testEngine) breakQuotas(id string) {
	te.t.Helper()
	dir := filepath.Join(te.dir, "state", "image", "containers")
	q, err := quota.Open(dir)
	if err != nil {
		te.t.Fatal(err)
	}
	defer q.Close()
	gone, half := filepath.Join(te.dir, "gone"), filepath.Join(dir, ".half.new")
	err = errors.Join(q.Release(filepath.Join(dir, id)), os.Mkdir(gone, 0o700), q.Claim(gone, 1<<20), os.Remove(gone),
		os.Mkdir(half, 0o700), q.Claim(half, 1<<20))
	if err != nil {
		te.t.Fatal(err)
	}
	for { // the kernel deletes in the background
		if strays, err := q.Strays(); err != nil || len(strays) > 0 {
			return
		}
	}
}

// checkFindings repairs, sees that these problems were found, and that none is left.
func (te *testEngine) checkFindings(problems ...string) {
	te.t.Helper()
	report, err := te.Check(te.t.Context(), true)
	if err != nil {
		te.t.Fatal(err)
	}
	if len(report.Findings) != len(problems) {
		te.t.Errorf("found %+v, want %q", report.Findings, problems)
	}
	for i, f := range report.Findings {
		if f.Repaired == "" || i < len(problems) && !strings.Contains(f.Problem, problems[i]) {
			te.t.Errorf("found %+v", f)
		}
	}
	if report, err = te.Check(te.t.Context(), false); err != nil || len(report.Findings) > 0 {
		te.t.Errorf("after the repair: %+v, %v", report.Findings, err)
	}
}

// changeAttributes is what a container does that wants to leave its project, with
// an attribute that does no harm.
func changeAttributes() int {
	f, err := os.Create("/f")
	if err == nil {
		const noDump = 0x40
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, noDump)
	}
	fmt.Println(err)
	return 0
}

// checkEscape: a limited container cannot change the projects of its files.
func (te *testEngine) checkEscape() {
	te.t.Helper()
	self, err := os.Executable()
	if err != nil {
		te.t.Fatal(err)
	}
	req := sized("4m", "/test")
	req.Env, req.HostConfig.Binds = []string{childVar + "=attributes"}, []string{self + ":/test:ro"}
	if out, code := te.output(req); out != "operation not supported\n" || code != 0 { // xfs itself supports it
		te.t.Errorf("changing a file's attributes: %q, exit %d", out, code)
	}
}

func (te *testEngine) checkSizedVolume() {
	te.t.Helper()
	ctx := context.Background()
	if _, err := te.VolumeCreate(ctx, &volumetypes.CreateRequest{Name: "small", DriverOpts: map[string]string{"size": "4m"}}); err != nil {
		te.t.Fatal(err)
	}
	req := request("sh", "-c", "dd if=/dev/zero of=/v/big bs=64k count=128 2>/dev/null || echo refused; stat -f -c '%b blocks of %S' /v")
	req.HostConfig.Binds = []string{"small:/v"}
	out, _ := te.output(req)
	if !strings.Contains(out, "refused") || !strings.Contains(out, "1024 blocks of 4096") {
		te.t.Errorf("in a volume of 4 MiB: %q", out)
	}
	if _, err := te.VolumeCreate(ctx, &volumetypes.CreateRequest{Name: "odd", DriverOpts: map[string]string{"size": "4m", "type": "tmpfs", "device": "tmpfs"}}); !errors.Is(err, errdefs.ErrInvalid) {
		te.t.Errorf("a size for a tmpfs: %v", err)
	}
	if err := te.VolumeRemove(ctx, "small", false); err != nil {
		te.t.Fatal(err)
	}
}

// checkSizedDefault: the configuration's size is for those who name none.
func (te *testEngine) checkSizedDefault() {
	te.t.Helper()
	te.cfg.StorageOptions = map[string]string{"size": "4m"}
	defer func() { te.cfg.StorageOptions = nil }()
	id := te.create("", request("sh", "-c", fillIt))
	view, err := te.ContainerInspect(te.t.Context(), id, false)
	if err != nil || view.HostConfig.StorageOpt["size"] != "4m" {
		te.t.Errorf("by default a container gets %v, %v", view.HostConfig.StorageOpt, err)
	}
	if err := te.ContainerRemove(te.t.Context(), id, RemoveOptions{}); err != nil {
		te.t.Fatal(err)
	}
}
