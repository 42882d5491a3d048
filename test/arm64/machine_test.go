//go:build arm64vm

package arm64

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// packages and which of their tests are run.
var packages = []struct{ path, run string }{
	{"kernel/program", "."},
	{"kernel/seccomp", "Kernel"},
	{"kernel/cgroup", "PidsLimitBars|MemoryLimitKills|FreezeStops|TestDevices"},
	{"oci", "TestInsideOfADefaultContainer|TestProcessSettings|TestMounts$|TestNamespacesAreNew|TestUserNamespace$|TestTimeOffsets|TestSchedule$|" +
		"Seccomp|TestInit|TestExec|TestHostBinaryIsOutOfReach|SeenConfined|TestLandlockLayers|TestEveryStepOfAnExecMayFail"},
}

// TestOnARM64 takes two minutes, when what it downloads is there.
func TestOnARM64(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	build := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	build("make", "-s", "-C", "../..", "build", "BIN="+dir, "BINARIES=berth-oci")
	script := smoke
	for _, p := range packages {
		name := strings.ReplaceAll(p.path, "/", "_")
		build("go", "test", "-c", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), "../../"+p.path)
		script += "echo '== " + p.path + "'\n./" + name + " -test.v -test.timeout 5m -test.run '" + p.run + "' || rc=1\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "all"), []byte(script+"exit $rc\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command("./vmrun-arm64", "--timeout", "600", dir, "sh", "./all")
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"berth-oci works", "PASS: TestKernelObeysDockerProfileOnARM64", "PASS: TestInsideOfADefaultContainer", "PASS: TestPidsLimitBars"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing:\n%s", want, out.String())
		}
	}
	for _, skipped := range regexp.MustCompile(`(?m)^--- SKIP: \S+`).FindAllString(out.String(), -1) {
		t.Log(skipped)
	}
}

// smoke uses the command as people do.
const smoke = `
rc=0
mount -t securityfs securityfs /sys/kernel/security
mkdir -p /var/lib /b/rootfs/bin
cp /bin/busybox /b/rootfs/bin
for a in $(busybox --list); do [ $a = busybox ] || ln /b/rootfs/bin/busybox /b/rootfs/bin/$a; done
smoke() {
	set -eu
	cd /b
	berth-oci spec
	sed -i 's/"terminal": true/"terminal": false/; s/^\(\t*\)"sh"/\1"sh", "-c", "uname -m"/' config.json
	[ "$(berth-oci run c1)" = aarch64 ]
	sed -i 's/"uname -m"/"exec sleep 1000"/' config.json
	berth-oci create c2 </dev/null >/dev/null 2>&1
	berth-oci start c2
	berth-oci update --memory 64M --pids-limit 50 c2
	[ "$(berth-oci exec c2 cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max | tr '\n' ' ')" = '67108864 50 ' ]
	berth-oci pause c2
	berth-oci state c2 | grep -q paused
	berth-oci resume c2
	berth-oci kill c2 KILL
	until berth-oci state c2 | grep -q stopped; do :; done
	berth-oci delete c2
	berth-oci features | grep -q SCMP_ARCH_AARCH64
	cd /work
	echo berth-oci works
}
(smoke) || rc=1
`
