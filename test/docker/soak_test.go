package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// soakOperations is how much is done when BERTH_SOAK_OPERATIONS does not
	// say ("make soak": 20,000).
	soakOperations = 600
	// soakCycles is how often all of it is undone and counted.
	soakCycles = 5
	// soakCallers work at once.
	soakCallers = 4
	// What memory may differ by between the first cycle and the last, in KiB: a
	// heap is collected when it likes. A leak of a KiB for each operation is
	// more, with 20,000 of them.
	engineSlack = 16 << 10
	keeperSlack = 8 << 10
)

// TestSoak makes, uses and removes containers again and again, and compares
// what engine, keeper and kernel hold after each cycle with the first: nothing
// grows.
func TestSoak(t *testing.T) {
	operations := soakOperations
	if text := os.Getenv("BERTH_SOAK_OPERATIONS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		operations = n
	}
	d := newDaemon(t)
	d.importBusybox(t)
	keep := d.run(t, "busybox", "sleep", "1000000") // so that the keeper stays
	api := newAPI(t, d.socket())
	rounds := max(1, operations/soakCycles/operationsPerRound/soakCallers)
	var first footprint
	for cycle := range soakCycles {
		began := time.Now()
		group, ctx := errgroup.WithContext(t.Context())
		for caller := range soakCallers {
			group.Go(func() error {
				for i := range rounds {
					if err := api.round(ctx, fmt.Sprintf("soak-%d-%d-%d", cycle, caller, i), i%5 == 0); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		api.client.CloseIdleConnections()
		if cycle == 0 {
			// The engine begins with idle workers and empty pools.
			first = d.settle(t, footprint{}, keep)
		}
		now := d.settle(t, first, keep)
		t.Logf("cycle %d: %d operations in %v: %v", cycle, rounds*soakCallers*operationsPerRound, time.Since(began).Round(time.Millisecond), now)
		for what, most := range first {
			if now[what] > most+slack(what) {
				t.Errorf("%s: %d after cycle %d, %d after the first", what, now[what], cycle, most)
			}
		}
	}
}

// slack is what a figure may grow by.
func slack(what string) int {
	switch what {
	case "engine KiB":
		return engineSlack
	case "keeper KiB":
		return keeperSlack
	}
	return 0
}

// footprint is what engine and keeper hold, by kind.
type footprint map[string]int

// settle counts until nothing is more than before, or for long enough to say
// that it stays so: connections close, and files are deleted, in the
// background. The first time, without a before, it is until nothing changes.
func (d *daemon) settle(t *testing.T, before footprint, keep string) footprint {
	t.Helper()
	d.emptiesTrash(t)
	deadline := time.Now().Add(patience)
	last, same := footprint{}, 0
	for {
		now := d.footprint(t)
		grown, changed := false, false
		for what, n := range now {
			grown = grown || n > before[what]+slack(what)
			changed = changed || n != last[what] && !strings.HasSuffix(what, "KiB")
		}
		if last = now; changed {
			same = 0
		}
		same++
		if len(before) > 0 && !grown || len(before) == 0 && same > 20 || time.Now().After(deadline) {
			return now
		}
		expect(t, "the container that stays", d.inspect(t, keep, ".State.Status"), "running")
	}
}

// footprint counts.
func (d *daemon) footprint(t *testing.T) footprint {
	t.Helper()
	engine, keeper := strconv.Itoa(d.cmd.Process.Pid), d.keeperPid(t)
	f := footprint{}
	for name, pid := range map[string]string{"engine": engine, "keeper": keeper} {
		fds, err := os.ReadDir("/proc/" + pid + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		f[name+" descriptors"] = len(fds)
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		if f[name+" KiB"], err = strconv.Atoi(strings.Fields(rest)[0]); err != nil {
			t.Fatal(err)
		}
	}
	goroutines, err := strconv.Atoi(d.ok(t, "info", "-f", "{{.NGoroutines}}"))
	if err != nil {
		t.Fatal(err)
	}
	f["engine goroutines"] = goroutines
	mounts, err := os.ReadFile("/proc/" + engine + "/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	f["mounts"] = strings.Count(string(mounts), d.dir)
	for name, roots := range map[string][]string{
		"cgroups": {"/sys/fs/cgroup" + cgroup, "/sys/fs/cgroup/cpu" + cgroup, "/sys/fs/cgroup/pids" + cgroup, "/sys/fs/cgroup/memory" + cgroup},
		"files":   {d.stateRoot, d.runRoot},
	} {
		for _, root := range roots {
			err := filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
				if err == nil && (e.IsDir() || name == "files") {
					f[name]++
				}
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	f["links"] = len(links)
	return f
}

// api speaks to the engine without starting a command for each request.
type api struct{ client *http.Client }

func newAPI(t *testing.T, socket string) *api {
	transport := &http.Transport{
		MaxIdleConnsPerHost: soakCallers,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &api{&http.Client{Transport: transport}}
}

// operationsPerRound is how many requests a round makes.
const operationsPerRound = 8

// round is a container's life: made, started, entered, its log read, stopped,
// removed.
func (a *api) round(ctx context.Context, name string, bridge bool) error {
	mode := "none"
	if bridge {
		mode = "bridge"
	}
	made, err := a.do(ctx, "POST", "/containers/create?name="+name, map[string]any{
		"Image": "busybox", "Cmd": []string{"sh", "-c", "echo begun; exec sleep 1000"},
		"HostConfig": map[string]any{"NetworkMode": mode, "Memory": 64 << 20, "PidsLimit": 64},
	})
	if err != nil {
		return err
	}
	at := "/containers/" + made
	if _, err := a.do(ctx, "POST", at+"/start", nil); err != nil {
		return err
	}
	exec, err := a.do(ctx, "POST", at+"/exec", map[string]any{"Cmd": []string{"echo", "hi"}, "AttachStdout": true})
	if err != nil {
		return err
	}
	if out, err := a.raw(ctx, "POST", "/exec/"+exec+"/start", map[string]any{}); err != nil || !bytes.HasSuffix(out, []byte("hi\n")) {
		return errors.Join(fmt.Errorf("exec in %s says %q", name, out), err)
	}
	if _, err := a.raw(ctx, "GET", at+"/logs?stdout=1", nil); err != nil {
		return err
	}
	if _, err := a.raw(ctx, "GET", "/containers/json", nil); err != nil {
		return err
	}
	if _, err := a.do(ctx, "POST", at+"/stop?t=0", nil); err != nil {
		return err
	}
	_, err = a.do(ctx, "DELETE", at, nil)
	return err
}

// do makes a request, and returns the id in its answer.
func (a *api) do(ctx context.Context, method, path string, body any) (id string, err error) {
	text, err := a.raw(ctx, method, path, body)
	if err != nil || len(text) == 0 {
		return "", err
	}
	var answer struct{ ID string }
	if err := json.Unmarshal(text, &answer); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", method, path, err, text)
	}
	return answer.ID, nil
}

func (a *api) raw(ctx context.Context, method, path string, body any) ([]byte, error) {
	var data io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		data = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://berth"+path, data)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return text, err
}
