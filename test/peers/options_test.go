//go:build peers

package peers

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scene is a run of a shell script in a container. Podman and Docker have the
// same options.
type scene struct {
	name    string
	options []string
	script  string
	want    string // all of its standard output
	code    int
	root    bool // an ordinary user without cgroups of its own cannot
}

// scenes are those every engine plays.
func scenes(t *testing.T) []scene {
	dir := openDir(t)
	profile := filepath.Join(dir, "seccomp.json")
	for file, text := range map[string]string{
		profile:                     `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":99}]}`,
		filepath.Join(dir, "greet"): "from the host\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return []scene{
		{name: "output", script: "echo out; echo err >&2", want: "out"},
		{name: "exit code", script: "exit 7", code: 7},
		{name: "killed by a signal", options: []string{"--init"}, script: "kill -9 $$", code: 137},
		{name: "environment and directory", options: []string{"-e", "CARGO=tea", "-w", "/tmp"}, script: "echo $CARGO; pwd", want: "tea\n/tmp"},
		{name: "user", options: []string{"--user", "1000:1000", "--group-add", "50"},
			script: "id -u; id -g; id -G | tr ' ' '\\n' | grep -x 50", want: "1000\n1000\n50"},
		{name: "user by name", options: []string{"--user", "sailor"}, script: "id -un", want: "sailor"},
		{name: "limits", root: true, options: []string{"--memory", "64m", "--cpus", "0.5", "--pids-limit", "50"},
			script: v1or2("memory/memory.limit_in_bytes", "memory.max") + v1or2("cpu/cpu.cfs_quota_us", "cpu.max") + v1or2("pids/pids.max", "pids.max"),
			want:   "67108864\n50000\n50"},
		{name: "memory runs out", root: true, options: []string{"--memory", "20m"}, script: "tail /dev/zero", code: 137},
		{name: "processes run out", root: true, options: []string{"--pids-limit", "5"},
			script: "(for i in 1 2 3 4 5 6; do sleep 1000 & done) 2>/dev/null || echo full", want: "full"},
		{name: "read-only", options: []string{"--read-only"}, script: "touch /x 2>/dev/null || echo refused", want: "refused"},
		{name: "tmpfs", options: []string{"--tmpfs", "/scratch:size=1m"},
			script: "stat -f -c %T /scratch; head -c 2m /dev/zero 2>/dev/null >/scratch/f || echo full", want: "tmpfs\nfull"},
		{name: "bind mount", options: []string{"-v", dir + ":/host:ro"},
			script: "cat /host/greet; touch /host/x 2>/dev/null || echo refused", want: "from the host\nrefused"},
		{name: "bind mount that is written", options: []string{"-v", dir + ":/host"}, script: "echo back >/host/answer; cat /host/answer", want: "back"},
		{name: "volume", options: []string{"-v", "cargo:/data"}, script: "touch /data/x; ls /data", want: "x"},
		{name: "init process", options: []string{"--init"}, script: "[ $$ -ne 1 ] && echo not the first", want: "not the first"},
		{name: "capabilities", options: []string{"--cap-drop", "all", "--cap-add", "net_raw"},
			script: "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2", want: strings.Repeat("0000000000002000\n", 2) + "0000000000002000"},
		{name: "privileged", options: []string{"--privileged"}, script: "mount -t tmpfs none /tmp && echo mounted; grep Seccomp: /proc/self/status",
			want: "mounted\nSeccomp:\t0"},
		{name: "no new privileges", options: []string{"--security-opt", "no-new-privileges"}, script: "grep NoNewPrivs /proc/self/status", want: "NoNewPrivs:\t1"},
		{name: "default seccomp profile", script: "grep Seccomp: /proc/self/status", want: "Seccomp:\t2"},
		{name: "own seccomp profile", options: []string{"--security-opt", "seccomp=" + profile},
			script: "mkdir /x 2>&1", want: "mkdir: can't create directory '/x': Cannot assign requested address", code: 1},
		{name: "seccomp unconfined", options: []string{"--security-opt", "seccomp=unconfined"}, script: "grep Seccomp: /proc/self/status", want: "Seccomp:\t0"},
		{name: "ulimit", options: []string{"--ulimit", "nofile=100:200"}, script: "ulimit -n; ulimit -Hn", want: "100\n200"},
		{name: "oom score", options: []string{"--oom-score-adj", "500"}, script: "cat /proc/self/oom_score_adj", want: "500"},
		{name: "kernel parameter", options: []string{"--sysctl", "kernel.msgmax=7777"}, script: "cat /proc/sys/kernel/msgmax", want: "7777"},
		{name: "shared memory", options: []string{"--shm-size", "2m"}, script: "df -k /dev/shm | tail -n 1 | awk '{print $2}'", want: "2048"},
		{name: "host name", options: []string{"--hostname", "quay"}, script: "hostname", want: "quay"},
		{name: "device", root: true, options: []string{"--device", "/dev/fuse:/dev/fuel:r"},
			script: "(: </dev/fuel) && echo read; (: >/dev/fuel) 2>/dev/null || echo refused", want: "read\nrefused"},
		{name: "namespaces of the host", root: true, options: []string{"--pid", "host", "--ipc", "host", "--uts", "host", "--network", "host"},
			script: "for n in pid ipc uts net; do readlink /proc/self/ns/$n; done", want: ownNamespaces(t, "pid", "ipc", "uts", "net")},
		{name: "no network", options: []string{"--network", "none"}, script: "ls /sys/class/net", want: "lo"},
		{name: "masked paths", script: "cat /proc/kcore | wc -c; ls /proc/scsi /sys/firmware 2>/dev/null | grep -v :", want: "0", code: 1},
	}
}

// openDir is a temporary directory that every user may write to.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// v1or2 prints the first word of a cgroup's file, by its name in either version.
func v1or2(v1, v2 string) string {
	return "cd /sys/fs/cgroup; cut -d' ' -f1 $([ -e " + v1 + " ] && echo " + v1 + " || echo " + v2 + "); "
}

// ownCapabilities is the bounding set of this process, as the kernel shows it.
func ownCapabilities(t *testing.T) string {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nCapBnd:\t")
	set, _, _ := strings.Cut(rest, "\n")
	return set
}

// ownNamespaces are those of this process, one on a line.
func ownNamespaces(t *testing.T, kinds ...string) string {
	t.Helper()
	var names []string
	for _, kind := range kinds {
		name, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return strings.Join(names, "\n")
}

// play runs the scenes, without a network unless they ask for one.
func (e *engine) play(t *testing.T) {
	for _, s := range scenes(t) {
		if s.root && e.rootless {
			continue
		}
		t.Run(s.name, func(t *testing.T) { e.playScene(t, s) })
	}
}

func (e *engine) playScene(t *testing.T, s scene) {
	options := append([]string{"--rm"}, s.options...)
	if !strings.Contains(strings.Join(options, " "), "--network") {
		options = append(options, "--network", "none")
	}
	r := e.try(t, "", e.run(options, "sh", "-c", s.script)...)
	if r.out != s.want || r.code != s.code {
		t.Errorf("%v: %s\nprints %q, exit code %d\nwant   %q, exit code %d\n%s", s.options, s.script, r.out, r.code, s.want, s.code, r.err)
	}
}
