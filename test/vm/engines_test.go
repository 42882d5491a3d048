//go:build vm

package vm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/berth-containers/berth/test/busybox"
)

// engineTests are those of test/peers that look at what is different there; the
// machine is too slow for all.
const engineTests = "TestCaller|TestContainerd/(life|exec|terminal|limits|processes)|" +
	"TestPodman/(run|life|exec|terminal|pod|update|user|AppArmor)|TestDocker/(life|exec|terminal|bridge|update|out|AppArmor)|" +
	"TestRootlessPodman/(ids|life)"

// TestEngines runs Podman, containerd, Docker and the caller of test/peers on
// pure cgroup v2, with their AppArmor profiles.
func TestEngines(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "berth-vm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, argv := range [][]string{
		{"go", "test", "-c", "-tags", "peers", "-o", filepath.Join(dir, "peers"), "../peers"},
		{"make", "-s", "-C", "../..", "build", "BIN=" + dir, "BINARIES=berth-oci"},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	vmrun, err := filepath.Abs("vmrun")
	if err != nil {
		t.Fatal(err)
	}
	const script = `echo "== engines"; export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin BERTH_OCI=$PWD/berth-oci
exec ./peers -test.v -test.timeout 15m -test.run '` + engineTests + `'`
	var out bytes.Buffer
	run := exec.Command(vmrun, "--timeout", "900", "--mem", "4G", "--dir", dir, "--", "sh", "-c", script)
	run.Stdout, run.Stderr = &out, &out
	err = run.Run()
	results(t, out.String(), err)
}

// TestPodmanWithSystemd: Podman has systemd make its containers' cgroups, by
// berth-oci --systemd-cgroup.
func TestPodmanWithSystemd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "berth-vm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "berth-oci"), "../../cmd/berth-oci")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	rootfs, err := busybox.Rootfs()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs.tar"), rootfs, 0o644); err != nil {
		t.Fatal(err)
	}
	vmrun, err := filepath.Abs("vmrun")
	if err != nil {
		t.Fatal(err)
	}
	var out, msg bytes.Buffer
	run := exec.Command(vmrun, "--timeout", "300", "--systemd", "--dir", dir, "--", "bash", "-c", podmanSystemdScript)
	run.Stdout, run.Stderr = &out, &msg
	if err := run.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &out, &msg)
	}
	const want = "67108864\n50000 100000\n50\n" +
		"0::/machine.slice/libpod-ID.scope\nlibpod-ID.scope active\n100663296\nleft: 0\n"
	if out.String() != want {
		t.Errorf("got %q\nwant %q\n%s", &out, want, &msg)
	}
}

// podmanSystemdScript prints the limits a container sees, where systemd has put
// another, a limit that Podman has changed, and the scopes that are left.
const podmanSystemdScript = `
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
podman() {
	command podman --root /var/lib/podman --runroot /run/podman/run --tmpdir /run/podman/tmp --runtime "$PWD/berth-oci" \
		--cgroup-manager systemd --events-backend file --log-level error "$@"
}
podman import -q rootfs.tar busybox >/dev/null
options='--network none --log-driver k8s-file --pids-limit 50 --memory 64m --cpus 0.5'
podman run --rm $options busybox cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max
id=$(podman run -d $options busybox sleep 1000)
sed "s/$id/ID/" /proc/$(podman inspect $id --format '{{.State.Pid}}')/cgroup
systemctl list-units --no-legend "libpod-$id.scope" | awk '{print $1, $3}' | sed "s/$id/ID/"
podman update --memory 96m $id >/dev/null
podman exec $id cat /sys/fs/cgroup/memory.max
podman rm -f -t 0 $id >/dev/null
echo "left: $(systemctl list-units --no-legend "libpod-$id.scope" | wc -l)"
`
