package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/lsm"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/profiles/apparmor"
)

// Under which profile a process runs the kernel says, in the process's own
// directory of /proc.
func TestAppArmorInTheKernel(t *testing.T) {
	needRoot(t)
	if !lsm.AppArmor() {
		t.Skip("needs a kernel with AppArmor")
	}
	if before, err := apparmor.IsLoaded(appArmorDefault); err == nil && !before {
		t.Cleanup(func() {
			if err := removeAppArmor(); err != nil {
				t.Error(err)
			}
		})
	}
	te := newTestEngine(t)
	const current = "cat /proc/self/attr/apparmor/current"
	for name, tc := range map[string]struct {
		set  func(*container.HostConfig)
		want string
	}{
		"default":    {func(*container.HostConfig) {}, "berth-default (enforce)\n"},
		"by name":    {func(h *container.HostConfig) { h.SecurityOpt = []string{"apparmor=berth-default"}; h.Privileged = true }, "berth-default (enforce)\n"},
		"unconfined": {func(h *container.HostConfig) { h.SecurityOpt = []string{"apparmor=unconfined"} }, "unconfined\n"},
		"privileged": {func(h *container.HostConfig) { h.Privileged = true }, "unconfined\n"},
	} {
		t.Run(name, func(t *testing.T) {
			req := request("sh", "-c", current)
			tc.set(req.HostConfig)
			id := te.create("", req)
			if got, want := te.inspect(id).AppArmorProfile, strings.Fields(tc.want)[0]; got != want {
				t.Errorf("inspect shows %q, want %q", got, want)
			}
			if out, code := te.output(req); out != tc.want {
				t.Errorf("printed %q (exit %d), want %q", out, code, tc.want)
			}
		})
	}
	// It denies what capabilities and seccomp allow, in execs too.
	req := request("sleep", "1000")
	req.HostConfig.CapAdd, req.HostConfig.SecurityOpt = []string{"SYS_ADMIN"}, []string{"seccomp=unconfined"}
	id := te.run("", req)
	if out, code := te.exec(id, "sh", "-c", current+"; mount -t tmpfs none /mnt 2>/dev/null || mount -t tmpfs none /tmp 2>/dev/null || echo denied"); out != "berth-default (enforce)\ndenied\n" {
		t.Errorf("exec: %q, %d", out, code)
	}
	req = request("true")
	req.HostConfig.SecurityOpt = []string{"apparmor=no-such-profile"}
	if err := te.ContainerStart(t.Context(), te.create("", req)); !errors.Is(err, errdefs.ErrInvalid) || errdefs.Hint(err) == "" {
		t.Errorf("a profile that is not loaded: %v", err)
	}
	info, err := te.Info(t.Context())
	if err != nil || !slices.Contains(info.SecurityOptions, "name=apparmor") {
		t.Errorf("info says %v, %v", info.SecurityOptions, err)
	}
	// Somebody has unloaded it: the next start loads it again.
	if err := removeAppArmor(); err != nil {
		t.Fatal(err)
	}
	if out, _ := te.output(request("sh", "-c", current)); out != "berth-default (enforce)\n" {
		t.Errorf("after it was unloaded: %q", out)
	}
}

func TestAppArmorChoice(t *testing.T) {
	a := &appArmor{}
	for _, tc := range []struct {
		asked      string
		privileged bool
		want       string
	}{{"", false, ""}, {"", true, ""}, {unconfined, false, unconfined}} {
		if got, err := a.profile(&securityOptions{appArmor: tc.asked}, tc.privileged, &hostFacts{}); got != tc.want || err != nil {
			t.Errorf("without AppArmor, %q: %q, %v", tc.asked, got, err)
		}
	}
	if !lsm.AppArmor() && a.canLoad(&hostFacts{}) {
		t.Error("a profile can be loaded without AppArmor")
	}
}
