//go:build vm

// Package vm runs tests of other packages on a kernel with pure cgroup v2 and
// AppArmor: their binaries are compiled here and executed in a virtual machine.
package vm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packages are those whose tests depend on the kernel's cgroup version or
// security modules.
var packages = []string{"kernel/program", "kernel/caps", "kernel/seccomp", "kernel/lsm", "kernel/criu", "kernel/cgroup", "oci", "keeper", "test/oci"}

func TestOnCgroupV2(t *testing.T) {
	out, err := inVM(t, packages, script)
	ran := results(t, out, err)
	if len(ran) < 20 {
		t.Errorf("only %d tests ran", len(ran))
	}
	// The machine has what these need.
	passed(t, ran, "oci/TestAppArmorProfile", "kernel/cgroup/TestHugePagesLimitBites", "kernel/cgroup/TestMemoryHighThrottles",
		"kernel/cgroup/TestIOMaxSlows", "kernel/cgroup/TestDevices", "kernel/cgroup/TestCPUQuotaThrottles",
		"kernel/cgroup/TestCpusetConfines", "kernel/cgroup/TestMemoryLimitKillsAndTells", "kernel/cgroup/TestPidsLimitBars",
		"kernel/cgroup/TestFreezeStopsThawResumes", "test/oci/TestCommands")
}

// TestEngine runs those of the engine's tests that look at what confines and
// limits a container, where the kernel has AppArmor, quotas and one cgroup tree.
func TestEngine(t *testing.T) {
	out, err := inVM(t, []string{"engine", "kernel/quota"}, engineScript)
	passed(t, results(t, out, err), "engine/TestAppArmorInTheKernel", "engine/TestConfinementInTheKernel", "engine/TestUpdateReachesTheKernel",
		"engine/TestUserNamespace", "engine/TestUserNamespaceWithNetworkAndVolumes", "engine/TestCDIDevice", "engine/TestStorageSize", "kernel/quota/TestQuota")
}

func TestOnSELinux(t *testing.T) {
	out, err := inVM(t, []string{"oci", "engine"}, seLinuxScript, "--lsm", "selinux", "--selinux-policy")
	passed(t, results(t, out, err), "oci/TestSELinuxLabels", "engine/TestSELinuxInTheKernel")
}

func TestOnSystemd(t *testing.T) {
	out, err := inVM(t, []string{"oci", "engine", "kernel/systemd"}, systemdScript, "--systemd")
	passed(t, results(t, out, err), "oci/TestSystemdScope", "engine/TestJournaldForReal", "kernel/systemd/TestScopeOfAProcess", "kernel/systemd of a user/TestScopeOfAProcess",
		"kernel/systemd of a user namespace/TestScopeOfAProcess")
}

// TestOnHybrid: where systemd keeps controllers on cgroup v1. It takes a boot of its
// own.
func TestOnHybrid(t *testing.T) {
	if os.Getenv("BERTH_TEST_BIG") == "" {
		t.Skip("set BERTH_TEST_BIG=1")
	}
	out, err := inVM(t, []string{"oci"}, "mkdir -p /var/lib/berth-test; export TMPDIR=/var/lib/berth-test\necho '== oci'\n"+
		"./oci -test.v -test.timeout 5m -test.run Systemd\n", "--systemd", "--hybrid")
	passed(t, results(t, out, err), "oci/TestSystemdScopeOnV1")
}

// inVM compiles the tests of packages and runs script beside them in a virtual
// machine.
func inVM(t *testing.T, packages []string, script string, options ...string) (string, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "berth-vm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, p := range packages {
		build := exec.Command("go", "test", "-c", "-o", filepath.Join(dir, strings.ReplaceAll(p, "/", "_")), "../../"+p)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("compile the tests of %s: %v\n%s", p, err, out)
		}
		if err := os.CopyFS(filepath.Join(dir, "src", p), os.DirFS("../../"+p)); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("make", "-s", "-C", "../..", "build", "BIN="+filepath.Join(dir, "bin"), "BINARIES=berth-oci")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build berth-oci: %v\n%s", err, out)
	}
	if err := os.CopyFS(filepath.Join(dir, "src", "demo"), os.DirFS("../../demo")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "all"), []byte(runTests+script), 0o755); err != nil {
		t.Fatal(err)
	}
	vmrun, err := filepath.Abs("vmrun")
	if err != nil {
		t.Fatal(err)
	}
	if again := os.Getenv("BERTH_TEST_RERUN"); again != "" {
		options = append(options, "--env", "BERTH_TEST_RERUN="+again)
	}
	var out bytes.Buffer
	run := exec.Command(vmrun, append(options, "--timeout", "900", "--dir", dir, "--", "sh", "./all")...)
	run.Stdout, run.Stderr = &out, &out
	err = run.Run()
	return out.String(), err
}

// runTests is the shell function run_tests BINARY ARGS...: it runs a test binary, and
// with BERTH_TEST_RERUN (see test/run) those of its tests that failed once more.
const runTests = `
run_tests() {
	"$@" -test.v >"$TMPDIR/said" 2>&1
	set -- $? "$@"
	cat "$TMPDIR/said"
	[ "$1" -ne 0 ] || return 0
	shift
	failed=$(sed -n 's/^--- FAIL: \([^ ]*\) .*/\1/p' "$TMPDIR/said" | paste -sd '|')
	if [ -z "$BERTH_TEST_RERUN" ] || [ -z "$failed" ] || grep -q '^panic: ' "$TMPDIR/said"; then
		return 1
	fi
	"$@" -test.v -test.run "^($failed)\$"
}
`

// script runs every test binary in a copy of its package's folder, on the
// machine's own disk: shared folders hold no overlays and no owners. One test is
// left out: it runs a generator, which needs the sources of other modules.
const script = `
mkdir -p /var/lib/berth-test; export TMPDIR=/var/lib/berth-test
echo 4 >/proc/sys/vm/nr_hugepages
export BERTH_OCI_BIN=$PWD/bin; cp -r src/demo /var/demo
rc=0
for p in ` + "kernel/program kernel/caps kernel/seccomp kernel/lsm kernel/criu kernel/cgroup oci keeper" + `; do
	cp -r src/$p /var/lib/pkg && bin=$PWD/$(echo $p | tr / _)
	echo "== $p"
	(cd /var/lib/pkg && run_tests "$bin" -test.timeout 10m -test.skip "^TestTableIsGenerated$") || rc=1
	rm -rf /var/lib/pkg
done
# The script that depends on the cgroup version: emulated, each costs a minute.
echo "== test/oci"
cp -r src/test/oci /var/lib/pkg && bin=$PWD/test_oci
(cd /var/lib/pkg && "$bin" -test.v -test.timeout 10m -test.run TestCommands/resources) || rc=1
exit $rc
`

// engineScript runs the engine's tests of confinement.
const engineScript = `
mkdir -p /var/lib/berth-test; export TMPDIR=/var/lib/berth-test
cp -r src/engine /var/lib/pkg && bin=$PWD/engine quota=$PWD/kernel_quota rc=0
echo "== engine"
cd /var/lib/pkg && run_tests "$bin" -test.timeout 10m -test.run "AppArmor|Confinement|UpdateReaches|UserNamespace|CDIDevice|StorageSize$" || rc=1
echo "== kernel/quota"
"$quota" -test.v -test.timeout 2m -test.run TestQuota/ext4 || rc=1
exit $rc
`

// seLinuxScript runs the tests that need SELinux: with its policy everything
// else is as it was.
const seLinuxScript = `
mkdir -p /var/lib/berth-test; export TMPDIR=/var/lib/berth-test
rc=0
for p in oci engine; do
	cp -r src/$p /var/lib/pkg && bin=$PWD/$p
	echo "== $p"
	(cd /var/lib/pkg && run_tests "$bin" -test.timeout 5m -test.run SELinux) || rc=1
	rm -rf /var/lib/pkg
done
exit $rc
`

// systemdScript runs the tests that need systemd.
const systemdScript = `
mkdir -p /var/lib/berth-test; export TMPDIR=/var/lib/berth-test
rc=0
echo "== oci"
run_tests ./oci -test.timeout 5m -test.run Systemd || rc=1
echo "== engine"
run_tests ./engine -test.timeout 5m -test.run TestJournaldForReal || rc=1
echo "== kernel/systemd"
run_tests ./kernel_systemd -test.timeout 5m || rc=1
# The manager of an ordinary user, started by hand: this machine has no logins.
echo 'berth:x:1000:1000::/tmp:/bin/sh' >>/etc/passwd; echo 'berth:x:1000:' >>/etc/group
cp kernel_systemd /tmp # this directory is shut for others
export XDG_RUNTIME_DIR=/run/user/1000
mkdir -p $XDG_RUNTIME_DIR; chown 1000:1000 $XDG_RUNTIME_DIR; chmod 700 $XDG_RUNTIME_DIR
systemd-run --quiet --uid=1000 --gid=1000 --setenv=XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR -p Delegate=yes --unit=manager /lib/systemd/systemd --user
until [ -S $XDG_RUNTIME_DIR/bus ]; do :; done
echo "== kernel/systemd of a user"
# It takes in processes of its own cgroup alone.
echo $$ >/sys/fs/cgroup/system.slice/manager.service/init.scope/cgroup.procs
setpriv --reuid 1000 --regid 1000 --clear-groups /tmp/kernel_systemd -test.v -test.timeout 5m || rc=1
echo "== kernel/systemd of a user namespace"
setpriv --reuid 1000 --regid 1000 --clear-groups unshare --map-root-user /tmp/kernel_systemd -test.v -test.timeout 5m || rc=1
exit $rc
`

// passed checks that tests did run and were not skipped.
func passed(t *testing.T, ran map[string]string, names ...string) {
	t.Helper()
	for _, name := range names {
		if ran[name] != "PASS" {
			t.Errorf("%s did not pass: %q", name, ran[name])
		}
	}
}
