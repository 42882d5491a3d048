package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/lsm"
	"github.com/berth-containers/berth/test/executed"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

func TestLabelOptions(t *testing.T) {
	for _, tc := range []struct {
		opts []string
		want []string
	}{
		{[]string{"label=disable"}, []string{"disable"}},
		{[]string{"label=type:boat_t", "label:level:s0:c1,c2"}, []string{"type:boat_t", "level:s0:c1,c2"}},
	} {
		sec, err := parseSecurityOpt(tc.opts, &hostFacts{})
		if err != nil || !slices.Equal(sec.labels, tc.want) {
			t.Errorf("%v: %v, %v", tc.opts, sec.labels, err)
		}
	}
}

// As what a process runs and what its files are the kernel says.
func TestSELinuxInTheKernel(t *testing.T) {
	needRoot(t)
	if !lsm.SELinux() {
		t.Skip("needs a kernel with SELinux")
	}
	te := newTestEngine(t)
	if !policyKnowsContainers() {
		t.Skip("the policy has no labels for containers")
	}
	shared, own := t.TempDir(), t.TempDir()
	req := request("sleep", "1000")
	req.Config.Volumes = map[string]struct{}{"/vol": {}}
	req.HostConfig.Binds = []string{shared + ":/shared:z", own + ":/own:Z"}
	id := te.run("", req)
	other := te.run("", request("sleep", "1000"))
	rec := te.snapshot(id)
	if rec.Labels.Process == te.snapshot(other).Labels.Process || !strings.Contains(rec.Labels.Process, ":s0:c") {
		t.Errorf("labels %+v and %+v", rec.Labels, te.snapshot(other).Labels)
	}
	if out, _ := te.exec(id, "cat", "/proc/self/attr/current"); strings.Trim(out, "\x00\n") != rec.Labels.Process {
		t.Errorf("exec runs as %q, want %q", out, rec.Labels.Process)
	}
	if got := procLabel(t, rec.State.Pid); got != rec.Labels.Process {
		t.Errorf("init runs as %q, want %q", got, rec.Labels.Process)
	}
	all := rec.Labels.Mount[:strings.Index(rec.Labels.Mount, ":s0")] + ":s0"
	for path, want := range map[string]string{"bin/busybox": rec.Labels.Mount, "vol": all, "shared": all, "own": rec.Labels.Mount, "etc/hosts": rec.Labels.Mount} {
		if got := fileLabel(t, filepath.Join("/proc", strconv.Itoa(rec.State.Pid), "root", path)); got != want {
			t.Errorf("/%s is %q, want %q", path, got, want)
		}
	}
	for name, tc := range map[string]struct {
		opts []string
		want func(string) bool
	}{
		"level":    {[]string{"label=level:s0:c100,c200"}, func(s string) bool { return strings.HasSuffix(s, ":s0:c100,c200") }},
		"disabled": {[]string{"label=disable"}, func(s string) bool { return !strings.Contains(s, "container_t") }},
	} {
		req := request("sleep", "1000")
		req.HostConfig.SecurityOpt = tc.opts
		if got := procLabel(t, te.snapshot(te.run("", req)).State.Pid); !tc.want(got) {
			t.Errorf("%s: runs as %q", name, got)
		}
	}
	req = request("true")
	req.HostConfig.SecurityOpt = []string{"label=type:no_such_type_t"}
	if _, err := te.ContainerCreate(t.Context(), "", req, nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a type the policy does not know: %v", err)
	}
	mapped := request("cat", "/proc/self/attr/current")
	mapped.HostConfig.UsernsMode = container.UsernsMode(usernsAuto)
	if out, _ := te.output(mapped); !strings.Contains(out, "container_t") {
		t.Errorf("in a user namespace: %q", out)
	}
	if info, err := te.Info(t.Context()); err != nil || !slices.Contains(info.SecurityOptions, "name=selinux") {
		t.Errorf("info says %v, %v", info.SecurityOptions, err)
	}
}

func procLabel(t *testing.T, pid int) string {
	t.Helper()
	executed.Await(t, pid)
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "attr/current"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Trim(string(b), "\x00\n")
}

func fileLabel(t *testing.T, path string) string {
	t.Helper()
	b := make([]byte, 256)
	n, err := unix.Getxattr(path, "security.selinux", b)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return ""
	}
	return strings.Trim(string(b[:n]), "\x00")
}
