package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
)

// cdiSpec describes devices of a vendor that is not there: they are the null
// device by another name. LOG is a directory for its hooks.
const cdiSpec = `{
  "cdiVersion": "0.7.0", "kind": "vendor.example/buoy",
  "containerEdits": {"env": ["BUOYS=yes"], "additionalGids": [4711]},
  "devices": [
    {"name": "red", "containerEdits": {
      "env": ["RED=1"],
      "deviceNodes": [{"path": "/dev/buoy-red", "hostPath": "/dev/null", "permissions": "rw"}],
      "mounts": [{"hostPath": "LOG", "containerPath": "/buoy", "options": ["ro", "bind"]}],
      "hooks": [
        {"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", "sed 's/.*\"status\":\"\\([a-z]*\\)\".*/createRuntime \\1/' >> LOG/order; echo >> LOG/order"]},
        {"hookName": "createContainer", "path": "/bin/sh", "env": ["PATH=/bin:/usr/bin"], "args": ["sh", "-c",
          "B=$(sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/'); grep -q '\"path\":\"rootfs\"' $B/config.json && echo of the hook > $B/rootfs/made; echo createContainer >> LOG/order"]},
        {"hookName": "startContainer", "path": "/bin/sh", "args": ["sh", "-c", "echo startContainer > /started"]},
        {"hookName": "poststart", "path": "/bin/sh", "args": ["sh", "-c", "echo poststart >> LOG/order"]},
        {"hookName": "poststop", "path": "/bin/sh", "args": ["sh", "-c", "echo poststop >> LOG/order"]}
      ]}},
    {"name": "green", "containerEdits": {
      "deviceNodes": [{"path": "/dev/buoy-green", "hostPath": "/dev/null"}],
      "hooks": [{"hookName": "createContainer", "path": "/bin/sh", "env": ["PATH=/bin:/usr/bin"], "args": ["sh", "-c",
          "B=$(sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/'); grep -q '\"path\":\"rootfs\"' $B/config.json && echo of the hook > $B/rootfs/made"]}]}},
    {"name": "0", "containerEdits": {"env": ["ZERO=1"]}},
    {"name": "all", "containerEdits": {"env": ["ALL=1"]}},
    {"name": "broken", "containerEdits": {"hooks": [
        {"hookName": "createContainer", "path": "/bin/sh", "args": ["sh", "-c", "echo no reef here; exit 3"]},
        {"hookName": "poststop", "path": "/bin/sh", "args": ["sh", "-c", "echo poststop of the broken >> LOG/order"]}]}},
    {"name": "unready", "containerEdits": {"hooks": [
        {"hookName": "startContainer", "path": "/bin/false"}]}},
    {"name": "stuck", "containerEdits": {"hooks": [
        {"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", "echo > LOG/stuck; exec sleep 1000"], "env": ["PATH=/bin:/usr/bin"]}]}},
    {"name": "slow", "containerEdits": {"hooks": [
        {"hookName": "createRuntime", "path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]}}
  ]}`

// newBuoys is an engine that knows the devices, and the directory of their
// hooks.
func newBuoys(t *testing.T) (te *testEngine, log string) {
	te = newTestEngine(t)
	dir := filepath.Join(te.dir, "cdi")
	log = filepath.Join(te.dir, "log")
	for _, d := range []string{dir, log} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	buoys := strings.ReplaceAll(cdiSpec, "LOG", log)
	gpus := strings.Replace(buoys, "vendor.example/buoy", "nvidia.com/gpu", 1)
	for name, text := range map[string]string{"buoys.json": buoys, "gpus.json": gpus} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	te.cdi.dirs = []string{dir}
	return te, log
}

func cdiRequest(names ...string) []container.DeviceRequest {
	return []container.DeviceRequest{{Driver: cdiDriver, DeviceIDs: names}}
}

func TestCDIDevice(t *testing.T) {
	te, log := newBuoys(t)
	req := request("sh", "-c", "echo x > /dev/buoy-red && echo $BUOYS $RED; id -G; cat /made /started; touch /buoy/x 2>/dev/null || echo ro")
	req.HostConfig.DeviceRequests = cdiRequest("vendor.example/buoy=red")
	const want = "yes 1\n0 4711\nof the hook\nstartContainer\nro\n"
	if out, code := te.output(req); out != want {
		t.Errorf("printed %q (exit %d), want %q", out, code, want)
	}
	order, err := os.ReadFile(filepath.Join(log, "order"))
	if err != nil || string(order) != "createRuntime created\ncreateContainer\npoststart\npoststop\n" {
		t.Errorf("hooks ran: %q, %v", order, err)
	}
	info, err := te.Info(t.Context())
	if err != nil || len(info.CDISpecDirs) != 1 || !strings.Contains(fmt.Sprint(info.DiscoveredDevices), "{cdi vendor.example/buoy=red}") {
		t.Errorf("info: %v, %v, %v", info.CDISpecDirs, info.DiscoveredDevices, err)
	}
}

// TestCDIDeviceMapped: with a user namespace a node is the host's, by whatever
// name the container knows it.
func TestCDIDeviceMapped(t *testing.T) {
	needMapped(t)
	te, log := newBuoys(t)
	for dir := log; dir != filepath.Dir(testRoot()); dir = filepath.Dir(dir) { // as /var/lib/berth is
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	req := auto("sh", "-c", "echo x > /dev/buoy-green && stat -c '%t:%T' /dev/buoy-green; cat /made; stat -c %u /made")
	req.HostConfig.DeviceRequests = cdiRequest("vendor.example/buoy=green")
	if out, code := te.output(req); out != "1:3\nof the hook\n0\n" {
		t.Errorf("printed %q (exit %d)", out, code)
	}
}

func TestGPUsByCDI(t *testing.T) {
	te, _ := newBuoys(t)
	gpu := [][]string{{"gpu"}}
	for name, tc := range map[string]struct {
		request container.DeviceRequest
		want    string
	}{
		"all":       {container.DeviceRequest{Count: -1, Capabilities: gpu}, "ALL=1\n"},
		"one":       {container.DeviceRequest{Count: 1, Capabilities: gpu}, "ZERO=1\n"},
		"by number": {container.DeviceRequest{DeviceIDs: []string{"0"}, Capabilities: gpu, Driver: "nvidia"}, "ZERO=1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			req := request("sh", "-c", "env | grep -E '^(ALL|ZERO)='")
			req.HostConfig.DeviceRequests = []container.DeviceRequest{tc.request}
			if out, code := te.output(req); out != tc.want {
				t.Errorf("printed %q (exit %d), want %q", out, code, tc.want)
			}
		})
	}
}

func TestCDIErrors(t *testing.T) {
	te, log := newBuoys(t)
	for text, q := range map[string][]container.DeviceRequest{
		"vendor.example/buoy=blue is not described": cdiRequest("vendor.example/buoy=blue"),
		"invalid CDI device name":                   cdiRequest("buoy"),
		"nvidia.com/gpu=1 is not described":         {{Count: 2, Capabilities: [][]string{{"gpu"}}}},
		`a device request of driver "tpu"`:          {{Driver: "tpu"}},
	} {
		req := request("true")
		req.HostConfig.DeviceRequests = q
		_, err := te.ContainerCreate(t.Context(), "", req, nil)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: error %v", text, err)
		}
		if errors.Is(err, errdefs.ErrInvalid) && errdefs.Hint(err) == "" {
			t.Errorf("%q: no hint", text)
		}
	}
	for device, text := range map[string]string{
		"broken":  "createContainer hook 0 (/bin/sh): exit status 3: no reef here",
		"unready": "startContainer hook 0 (/bin/false)",
		"slow":    "createRuntime hook 0 (/bin/sleep): not done after 1 s, killed",
	} {
		req := request("true")
		req.HostConfig.DeviceRequests = cdiRequest("vendor.example/buoy=" + device)
		id := te.create("", req)
		err := te.ContainerStart(t.Context(), id)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: error %v", device, err)
		}
		if st := te.inspect(id).State; st.Status != stateCreated || st.Pid != 0 {
			t.Errorf("%s: state %+v", device, st)
		}
		if g, err := te.cgroup(te.snapshot(id)); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s: cgroup left: %v, %v", device, g, err)
		}
	}
	if order, _ := os.ReadFile(filepath.Join(log, "order")); string(order) != "poststop of the broken\n" {
		t.Errorf("hooks ran: %q", order)
	}
}

// snapshot is a container's record.
func (te *testEngine) snapshot(id string) *record {
	te.t.Helper()
	c, err := te.containers.get(id)
	if err != nil {
		te.t.Fatal(err)
	}
	return c.snapshot()
}
