package oci

import (
	"encoding/hex"
	"errors"
	"math/bits"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// schedOf prints policy, nice value and real-time priority of the shell itself
// (proc_pid_stat(5), fields 41, 19 and 40), without a fork.
const schedOf = "read -r line </proc/self/stat; set -- $line; echo ${41} ${19} ${40}"

func TestSchedule(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	for _, c := range []struct {
		name, script, want string
		set                func(*specs.Spec)
	}{
		{"default", schedOf, "0 0 0", func(*specs.Spec) {}},
		{"batch", schedOf, "3 5 0", func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5}
		}},
		{"other, and children too", "cut -d' ' -f41,19 /proc/self/stat", "-7 0", func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: -7}
		}},
		{"idle", schedOf, "5 0 0", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle} }},
		{"deadline", schedOf, "6 0 0", func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 1e6, Deadline: 1e7, Period: 1e8}
		}},
		{"I/O best effort", "ionice -p $$", "best-effort: prio 6", func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
		}},
		{"I/O real time", "ionice -p $$", "realtime: prio 2", func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_RT, Priority: 2}
		}},
		{"I/O idle", "ionice -p $$", "idle", func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE, Priority: 0}
		}},
		{"personality", "uname -m", map[string]string{"amd64": "i686", "arm64": "armv8l"}[runtime.GOARCH], func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
		}},
		{"memory policy", "cut -d' ' -f2 /proc/self/numa_maps | sort -u", "bind=static:0", func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
		}},
		{"memory policy without nodes", "cut -d' ' -f2 /proc/self/numa_maps | sort -u", "local", func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolLocal}
		}},
		{"init runs anywhere", "grep Cpus_allowed_list /proc/self/status", affinity(t, "/proc/self/status"), func(s *specs.Spec) {
			s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := specFor(root, "sh", "-c", c.script)
			c.set(s)
			if c.name == "deadline" && !anyProcessor(t) {
				t.Skip("a process with deadlines must be allowed on all processors (sched_setattr(2), EPERM)")
			}
			if got := mustRun(t, s); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Real-time policies, in the caller's cgroup: in one of its own of version 1
// the kernel first wants processor time set aside for them.
func TestRealTimeSchedule(t *testing.T) {
	s := startSleeper(t, func(s *specs.Spec) { s.Process.Capabilities.Bounding = nil })
	s.req.Cgroup = nil
	pr := s.process("sh", "-c", schedOf+"; cut -d' ' -f41 /proc/self/stat; true")
	for _, c := range []struct {
		want string
		set  specs.Scheduler
	}{
		{"1 0 7\n1", specs.Scheduler{Policy: specs.SchedFIFO, Priority: 7}},
		{"2 0 9\n0", specs.Scheduler{Policy: specs.SchedRR, Priority: 9, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}},
	} {
		for _, pr.User.UID = range []uint32{0, 1000} {
			pr.Scheduler = &c.set
			if out, _, err := s.exec(pr); err != nil || out != c.want {
				t.Errorf("%s as %d: %v, %q, want %q", c.set.Policy, pr.User.UID, err, out, c.want)
			}
		}
	}
}

// affinity is the line of a process's or thread's status that lists its
// processors.
func affinity(t *testing.T, status string) string {
	t.Helper()
	b, err := os.ReadFile(status)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(line, "Cpus_allowed_list:") {
			return line
		}
	}
	t.Fatalf("%s has no Cpus_allowed_list", status)
	return ""
}

// anyProcessor says whether this process may run on every processor there is.
func anyProcessor(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		t.Fatal(err)
	}
	online := 0
	for _, eight := range listMask(strings.TrimSpace(string(b))) {
		online += bits.OnesCount8(eight)
	}
	return runtime.NumCPU() == online
}

func TestScheduleOfExecs(t *testing.T) {
	s := startSleeper(t, func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 3}
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 7}
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 100}}
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	})
	script := schedOf + "; ionice -p $$; uname -m; ulimit -n"
	bare := &specs.Process{Args: []string{"sh", "-c", script}, Cwd: "/"}
	if out, _, err := s.exec(bare); err != nil || out != "3 3 0\nbest-effort: prio 7\ni686\n100" {
		t.Errorf("the container's: %v, %q", err, out)
	}
	bare.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle}
	bare.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
	if out, _, err := s.exec(bare); err != nil || out != "5 0 0\nidle\ni686\n100" {
		t.Errorf("its own: %v, %q", err, out)
	}
}

func TestProcessorsOfExecs(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two processors")
	}
	s := startSleeper(t, nil)
	before := affinity(t, "/proc/self/status")
	pr := s.process("sh", "-c", "grep Cpus_allowed_list /proc/self/status")
	for _, c := range []struct {
		name string
		a    *specs.CPUAffinity
		want string
	}{
		{"none", nil, before},
		{"empty", &specs.CPUAffinity{}, before},
		{"final", &specs.CPUAffinity{Final: "1"}, "Cpus_allowed_list:\t1"},
		{"both", &specs.CPUAffinity{Initial: "0", Final: "1"}, "Cpus_allowed_list:\t1"},
	} {
		pr.ExecCPUAffinity = c.a
		if out, _, err := s.exec(pr); err != nil || out != c.want {
			t.Errorf("%s: %v, %q, want %q", c.name, err, out, c.want)
		}
	}
	// Where no cgroup is entered, nothing replaces the initial ones.
	s.req.Cgroup = nil
	pr.ExecCPUAffinity = &specs.CPUAffinity{Initial: "1"}
	if out, _, err := s.exec(pr); err != nil || out != "Cpus_allowed_list:\t1" {
		t.Errorf("initial: %v, %q", err, out)
	}
	pr.ExecCPUAffinity.Initial = "60000"
	if _, _, err := s.exec(pr); err == nil || !strings.Contains(err.Error(), "run on processors 60000: invalid argument") {
		t.Errorf("a processor that is not there: %v", err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(threads) == 0 {
		t.Fatal(err)
	}
	for _, status := range threads {
		if b, err := os.ReadFile(status); err == nil && !strings.Contains(string(b), before) {
			t.Errorf("%s of the caller has other processors now", status)
		}
	}
}

// Real-time policies need CAP_SYS_NICE on the host, which a user namespace does
// not give.
func TestSchedulerWithoutPrivilege(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chown(root, 100000, 100000)); err != nil {
		t.Fatal(err)
	}
	s := specFor(root, "true")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 1}
	_, _, err := run(t, s)
	if !errors.Is(err, unix.EPERM) || !strings.HasPrefix(err.Error(), "set scheduler SCHED_FIFO") || !strings.Contains(errdefs.Hint(err), "CAP_SYS_NICE") {
		t.Errorf("%v (%s)", err, errdefs.Hint(err))
	}
}

func TestBadProcessFieldsAreNamed(t *testing.T) {
	umask := uint32(0o10000)
	for field, set := range map[string]func(*specs.Spec){
		"process.scheduler.policy": func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{} },
		"process.scheduler.flags": func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_OTHER", Flags: []specs.LinuxSchedulerFlag{"x"}}
		},
		"process.scheduler.nice":     func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_OTHER", Nice: 20} },
		"process.scheduler.priority": func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_OTHER", Priority: 1} },
		"priority 0: must be 1":      func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_FIFO"} },
		"only for SCHED_DEADLINE": func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_FIFO", Priority: 1, Period: 1}
		},
		"process.ioPriority.class": func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{} },
		"process.ioPriority.priority": func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		},
		"process.execCPUAffinity.initial": func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "1-"} },
		"process.execCPUAffinity.final":   func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "3-1"} },
		"process.user.umask":              func(s *specs.Spec) { s.Process.User.Umask = &umask },
		"RLIMIT_NOFILE twice": func(s *specs.Spec) {
			s.Process.Rlimits = append(s.Process.Rlimits, s.Process.Rlimits[0])
		},
		"linux.personality.domain": func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{} },
		"linux.memoryPolicy.mode":  func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{} },
		"linux.memoryPolicy.flags": func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolLocal, Flags: []specs.MemoryPolicyFlagType{"x"}}
		},
		"linux.memoryPolicy.nodes: MPOL_LOCAL takes none": func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolLocal, Nodes: "0"}
		},
		"linux.memoryPolicy.nodes: MPOL_BIND needs": func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind}
		},
		"linux.memoryPolicy.nodes \"99999\"": func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "99999"}
		},
	} {
		s := specFor("/nonexistent", "true")
		set(s)
		_, err := Compile(s, "/")
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestListMask(t *testing.T) {
	for list, want := range map[string]string{
		"":         "",
		"0":        "0100000000000000",
		"0-3,7":    "8f00000000000000",
		"63":       "0000000000000080",
		"1, 64-65": "02000000000000000300000000000000",
	} {
		if _, ok := parseList(list); !ok {
			t.Errorf("%q is refused", list)
		}
		if got := hex.EncodeToString(listMask(list)); got != want {
			t.Errorf("%q is %s, want %s", list, got, want)
		}
	}
	for _, list := range []string{",", "1,", "a", "-1", "1-2-3", "2-1", "65536", "99999999999999999999"} {
		if _, ok := parseList(list); ok {
			t.Errorf("%q is accepted", list)
		}
	}
}

func TestLastVariableOfANameCounts(t *testing.T) {
	needRoot(t)
	s := specFor(rootfs(t), "env")
	s.Process.Env = []string{"A=1", "PATH=/nowhere", "B=2", "A=3=4", "PATH=/bin", "A="}
	if got, want := mustRun(t, s), "B=2\nPATH=/bin\nA=\nHOME=/"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
