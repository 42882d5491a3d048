package oci

import (
	"encoding/json"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestFeaturesAreTrue(t *testing.T) {
	f, err := Features()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		have []string
		want []string
		not  []string
	}{
		{"hooks", f.Hooks, []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}, nil},
		{"mountOptions", f.MountOptions, []string{"ro", "rro", "bind", "rbind", "rslave", "private", "nosymfollow", "tmpcopyup", "idmap", "sync"},
			[]string{"size", "nosuchoption", "rbindable", ""}},
		{"namespaces", f.Linux.Namespaces, []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}, nil},
		{"capabilities", f.Linux.Capabilities, []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}, []string{"CAP_63"}},
		{"seccomp.actions", f.Linux.Seccomp.Actions, []string{"SCMP_ACT_NOTIFY", "SCMP_ACT_KILL", "SCMP_ACT_LOG"}, nil},
		{"seccomp.operators", f.Linux.Seccomp.Operators, []string{"SCMP_CMP_NE", "SCMP_CMP_MASKED_EQ"}, nil},
		{"seccomp.archs", f.Linux.Seccomp.Archs, []string{"SCMP_ARCH_X86_64", "SCMP_ARCH_ARM"}, []string{"SCMP_ARCH_S390X"}},
		{"seccomp.knownFlags", f.Linux.Seccomp.KnownFlags, []string{"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}, nil},
		// In every kernel that this runs on (5.15).
		{"seccomp.supportedFlags", f.Linux.Seccomp.SupportedFlags, []string{"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"}, nil},
		{"memoryPolicy.modes", f.Linux.MemoryPolicy.Modes, []string{"MPOL_BIND", "MPOL_LOCAL"}, nil},
	} {
		for _, name := range c.want {
			if !slices.Contains(c.have, name) {
				t.Errorf("%s lacks %s: %v", c.what, name, c.have)
			}
		}
		for _, name := range c.not {
			if slices.Contains(c.have, name) {
				t.Errorf("%s has %q", c.what, name)
			}
		}
	}
	for what, flag := range map[string]*bool{
		"seccomp": f.Linux.Seccomp.Enabled, "apparmor": f.Linux.Apparmor.Enabled, "selinux": f.Linux.Selinux.Enabled,
		"idmap":    f.Linux.MountExtensions.IDMap.Enabled,
		"intelRdt": f.Linux.IntelRdt.Enabled, "netDevices": f.Linux.NetDevices.Enabled, "cgroup v1": f.Linux.Cgroup.V1, "cgroup v2": f.Linux.Cgroup.V2,
	} {
		if flag == nil || !*flag {
			t.Errorf("%s is not enabled", what)
		}
	}
	if accepted(func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "nonsense"} }) {
		t.Error("nonsense is accepted: then nothing said here means anything")
	}
}

func TestRootlessSpecification(t *testing.T) {
	s := DefaultSpec()
	MakeRootless(s, 1000, 1001)
	if err := check(s); err != nil {
		t.Fatal(err)
	}
	l := s.Linux
	if !hasNamespace(l, specs.UserNamespace) || hasNamespace(l, specs.NetworkNamespace) || l.Resources != nil ||
		l.UIDMappings[0] != (specs.LinuxIDMapping{HostID: 1000, Size: 1}) || l.GIDMappings[0].HostID != 1001 {
		b, err := json.Marshal(l)
		t.Errorf("%s %v", b, err)
	}
	for _, m := range s.Mounts {
		if m.Type == "sysfs" || slices.Contains(m.Options, "gid=5") {
			t.Errorf("an ordinary user may not mount %+v", m)
		}
	}
}
