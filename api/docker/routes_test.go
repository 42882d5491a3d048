package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/engine/explain"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// recorder notes each call of the engine as "Method arguments".
type recorder struct {
	Engine
	calls []string
	body  any
}

func (e *recorder) note(format string, args ...any) {
	e.calls = append(e.calls, fmt.Sprintf(format, args...))
}

func (e *recorder) ContainerCreate(_ context.Context, name string, req *container.CreateRequest, platform *ocispec.Platform) (container.CreateResponse, error) {
	e.note("create %s %v", name, platform)
	e.body = req
	return container.CreateResponse{ID: "c1"}, nil
}
func (e *recorder) ContainerStop(_ context.Context, ref string, opt engine.StopOptions) error {
	e.note("stop %s %s %s", ref, opt.Signal, number(opt.Timeout))
	return nil
}
func (e *recorder) ContainerRestart(_ context.Context, ref string, opt engine.StopOptions) error {
	e.note("restart %s %s %s", ref, opt.Signal, number(opt.Timeout))
	return nil
}
func (e *recorder) ContainerKill(_ context.Context, ref, signal string) error {
	e.note("kill %s %s", ref, signal)
	return nil
}
func (e *recorder) ContainerPause(_ context.Context, ref string) error {
	e.note("pause %s", ref)
	return nil
}
func (e *recorder) ContainerUnpause(_ context.Context, ref string) error {
	e.note("unpause %s", ref)
	return nil
}
func (e *recorder) ContainerRemove(_ context.Context, ref string, opt engine.RemoveOptions) error {
	e.note("remove %s %+v", ref, opt)
	return nil
}
func (e *recorder) ContainerRename(_ context.Context, ref, name string) error {
	e.note("rename %s %s", ref, name)
	return nil
}
func (e *recorder) ContainerUpdate(_ context.Context, ref string, upd *container.UpdateConfig) (container.UpdateResponse, error) {
	e.note("update %s %d %s", ref, upd.Memory, upd.RestartPolicy.Name)
	return container.UpdateResponse{Warnings: []string{"w"}}, nil
}
func (e *recorder) ContainerCommit(_ context.Context, opt engine.CommitOptions) (string, error) {
	e.note("commit %+v", opt)
	return "sha256:aa", nil
}
func (e *recorder) ContainerPrune(_ context.Context, f engine.Filters) (*container.PruneReport, error) {
	e.note("prune %v", f)
	return &container.PruneReport{ContainersDeleted: []string{"c1"}, SpaceReclaimed: 5}, nil
}
func (e *recorder) ContainerList(_ context.Context, opt engine.ListOptions) ([]container.Summary, error) {
	e.note("list %+v", opt)
	return nil, nil
}
func (e *recorder) ContainerExplain(_ context.Context, ref string) (*explain.Container, error) {
	e.note("explain %s", ref)
	return &explain.Container{ID: ref}, nil
}
func (e *recorder) Watch(_ context.Context, every time.Duration, fn func(*engine.Overview) error) error {
	e.note("watch %s", every)
	return fn(&engine.Overview{CPUs: 2})
}
func (e *recorder) ContainerTop(_ context.Context, ref, args string) (*container.TopResponse, error) {
	e.note("top %s %s", ref, args)
	return &container.TopResponse{Titles: []string{"PID"}}, nil
}
func (e *recorder) ContainerResize(_ context.Context, ref string, h, w uint) error {
	e.note("resize %s %d %d", ref, h, w)
	return nil
}
func (e *recorder) ContainerExport(_ context.Context, ref string, w io.Writer) error {
	e.note("export %s", ref)
	_, err := io.WriteString(w, "a tar")
	return err
}
func (e *recorder) ExecCreate(_ context.Context, ref string, req *container.ExecCreateRequest) (string, error) {
	e.note("exec %s %v %v", ref, req.Cmd, *req.ConsoleSize)
	return "e1", nil
}
func (e *recorder) ExecResize(_ context.Context, id string, h, w uint) error {
	e.note("exec resize %s %d %d", id, h, w)
	return nil
}
func (e *recorder) ExecInspect(_ context.Context, id string) (*container.ExecInspectResponse, error) {
	code := 3
	return &container.ExecInspectResponse{ID: id, ExitCode: &code}, nil
}
func (e *recorder) ImageImport(_ context.Context, r io.Reader, opt engine.ImageImportOptions) (string, error) {
	body, err := io.ReadAll(r)
	e.note("import %s %s %s %v %s", body, opt.Ref, opt.Message, opt.Changes, opt.Platform.Architecture)
	return "sha256:bb", err
}
func (e *recorder) ImageSave(_ context.Context, opt engine.ImageSaveOptions, w io.Writer) error {
	e.note("save %v", opt.Names)
	_, err := io.WriteString(w, "images")
	return err
}
func (e *recorder) ImageTag(_ context.Context, src, dst string) error {
	e.note("tag %s %s", src, dst)
	return nil
}
func (e *recorder) ImageHistory(_ context.Context, ref string) ([]image.HistoryResponseItem, error) {
	e.note("history %s", ref)
	return nil, nil
}
func (e *recorder) ImageRemove(_ context.Context, ref string, opt engine.ImageRemoveOptions) ([]image.DeleteResponse, error) {
	e.note("rmi %s %+v", ref, opt)
	return []image.DeleteResponse{{Untagged: "a"}}, nil
}
func (e *recorder) ImageInspect(_ context.Context, ref string) (*image.InspectResponse, error) {
	e.note("image %s", ref)
	return &image.InspectResponse{ID: "sha256:aa", Size: 7}, nil
}

func (e *recorder) VolumeCreate(_ context.Context, req *volume.CreateRequest) (*volume.Volume, error) {
	e.note("volume create %s %s %v %v", req.Name, req.Driver, req.DriverOpts, req.Labels)
	return &volume.Volume{Name: "v1"}, nil
}
func (e *recorder) VolumeInspect(_ context.Context, name string) (*volume.Volume, error) {
	return nil, notFound("get %s: no such volume", name)
}
func (e *recorder) VolumeList(_ context.Context, f engine.Filters) ([]volume.Volume, error) {
	e.note("volume list %v", f)
	return nil, nil
}
func (e *recorder) VolumeRemove(_ context.Context, name string, force bool) error {
	e.note("volume remove %s %v", name, force)
	return nil
}
func (e *recorder) VolumePrune(_ context.Context, f engine.Filters) (*volume.PruneReport, error) {
	e.note("volume prune %v", f)
	return &volume.PruneReport{VolumesDeleted: []string{"v1"}, SpaceReclaimed: 5}, nil
}

func number(n *int) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

// TestTranslation: each request of Docker's client reaches the engine with all
// that it said.
func TestTranslation(t *testing.T) {
	e := &recorder{}
	socket, _ := serve(t, e)
	c := mobyClient(t, socket, "1.56")
	ctx, five := t.Context(), 5
	const name = "localhost:5000/a/b/c:v1"
	for _, test := range []struct {
		want string
		call func() error
	}{
		{"stop web SIGQUIT 5", func() error {
			_, err := c.ContainerStop(ctx, "web", client.ContainerStopOptions{Signal: "SIGQUIT", Timeout: &five})
			return err
		}},
		{"stop web  -", func() error { _, err := c.ContainerStop(ctx, "web", client.ContainerStopOptions{}); return err }},
		{"restart web  5", func() error {
			_, err := c.ContainerRestart(ctx, "web", client.ContainerRestartOptions{Timeout: &five})
			return err
		}},
		{"kill web HUP", func() error {
			_, err := c.ContainerKill(ctx, "web", client.ContainerKillOptions{Signal: "HUP"})
			return err
		}},
		{"pause web", func() error { _, err := c.ContainerPause(ctx, "web", client.ContainerPauseOptions{}); return err }},
		{"unpause web", func() error {
			_, err := c.ContainerUnpause(ctx, "web", client.ContainerUnpauseOptions{})
			return err
		}},
		{"remove web {Force:true Volumes:true}", func() error {
			_, err := c.ContainerRemove(ctx, "web", client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			return err
		}},
		{"rename web db", func() error {
			_, err := c.ContainerRename(ctx, "web", client.ContainerRenameOptions{NewName: "db"})
			return err
		}},
		{"update web 4096 always", func() error {
			got, err := c.ContainerUpdate(ctx, "web", client.ContainerUpdateOptions{
				Resources:     &container.Resources{Memory: 4096},
				RestartPolicy: &container.RestartPolicy{Name: "always"},
			})
			if err == nil && len(got.Warnings) != 1 {
				err = fmt.Errorf("answer %+v", got)
			}
			return err
		}},
		{"commit {Container:web Ref:docker.io/library/new:v2 Author:me Comment:why Changes:[CMD a ENV b] Config:<nil> Pause:false}", func() error {
			got, err := c.ContainerCommit(ctx, "web", client.ContainerCommitOptions{
				Reference: "new:v2", Author: "me", Comment: "why", Changes: []string{"CMD a", "ENV b"}, NoPause: true})
			if err == nil && got.ID != "sha256:aa" {
				err = fmt.Errorf("answer %+v", got)
			}
			return err
		}},
		{"prune map[label:map[a=b:true]]", func() error {
			got, err := c.ContainerPrune(ctx, client.ContainerPruneOptions{Filters: make(client.Filters).Add("label", "a=b")})
			if err == nil && got.Report.SpaceReclaimed != 5 {
				err = fmt.Errorf("answer %+v", got)
			}
			return err
		}},
		{"list {All:true Limit:3 Size:true Filters:map[status:map[exited:true]]}", func() error {
			_, err := c.ContainerList(ctx, client.ContainerListOptions{All: true, Limit: 3, Size: true, Filters: make(client.Filters).Add("status", "exited")})
			return err
		}},
		{"top web aux -w", func() error {
			_, err := c.ContainerTop(ctx, "web", client.ContainerTopOptions{Arguments: []string{"aux", "-w"}})
			return err
		}},
		{"resize web 24 80", func() error {
			_, err := c.ContainerResize(ctx, "web", client.ContainerResizeOptions{Height: 24, Width: 80})
			return err
		}},
		{"volume create data local map[o:bind] map[a:b]", func() error {
			got, err := c.VolumeCreate(ctx, client.VolumeCreateOptions{Name: "data", Driver: "local", DriverOpts: map[string]string{"o": "bind"}, Labels: map[string]string{"a": "b"}})
			if err == nil && got.Volume.Name != "v1" {
				err = fmt.Errorf("answer %+v", got)
			}
			return err
		}},
		{"volume list map[dangling:map[true:true]]", func() error {
			_, err := c.VolumeList(ctx, client.VolumeListOptions{Filters: make(client.Filters).Add("dangling", "true")})
			return err
		}},
		{"volume remove data true", func() error {
			_, err := c.VolumeRemove(ctx, "data", client.VolumeRemoveOptions{Force: true})
			return err
		}},
		{"volume prune map[all:map[true:true]]", func() error {
			got, err := c.VolumePrune(ctx, client.VolumePruneOptions{All: true})
			if err == nil && got.Report.SpaceReclaimed != 5 {
				err = fmt.Errorf("answer %+v", got)
			}
			return err
		}},
		{"export web", func() error {
			got, err := c.ContainerExport(ctx, "web", client.ContainerExportOptions{})
			return readAll(got, err, "a tar")
		}},
		{"exec web [ls -l] [24 80]", func() error {
			got, err := c.ExecCreate(ctx, "web", client.ExecCreateOptions{Cmd: []string{"ls", "-l"}, TTY: true, ConsoleSize: client.ConsoleSize{Height: 24, Width: 80}})
			if err == nil && got.ID != "e1" {
				err = fmt.Errorf("answer %+v", got)
			}
			return err
		}},
		{"exec resize e1 30 90", func() error {
			_, err := c.ExecResize(ctx, "e1", client.ExecResizeOptions{Height: 30, Width: 90})
			return err
		}},
		{"import a tar x/y:v1 note [CMD a ENV b] arm64", func() error {
			got, err := c.ImageImport(ctx, client.ImageImportSource{Source: strings.NewReader("a tar"), SourceName: "-"}, "x/y", client.ImageImportOptions{
				Tag: "v1", Message: "note", Changes: []string{"CMD a", "ENV b"}, Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}})
			return readAll(got, err, `{"status":"sha256:bb"}`)
		}},
		{"save [a b/c:d]", func() error {
			got, err := c.ImageSave(ctx, []string{"a", "b/c:d"})
			return readAll(got, err, "images")
		}},
		{"tag " + name + " docker.io/x/y:v2", func() error {
			_, err := c.ImageTag(ctx, client.ImageTagOptions{Source: name, Target: "x/y:v2"})
			return err
		}},
		{"history " + name, func() error { _, err := c.ImageHistory(ctx, name); return err }},
		{"image " + name, func() error { _, err := c.ImageInspect(ctx, name); return err }},
		{"rmi " + name + " {Force:true NoPrune:true}", func() error {
			got, err := c.ImageRemove(ctx, name, client.ImageRemoveOptions{Force: true})
			if err == nil && len(got.Items) != 1 {
				err = fmt.Errorf("answer %+v", got)
			}
			return err
		}},
	} {
		e.calls = nil
		err := test.call()
		if err != nil || len(e.calls) != 1 || e.calls[0] != test.want {
			t.Errorf("engine heard %q, %v, want %q", e.calls, err, test.want)
		}
	}
	if got, err := c.ExecInspect(ctx, "e1", client.ExecInspectOptions{}); err != nil || got.ExitCode != 3 {
		t.Errorf("exec inspect: %+v %v", got, err)
	}
	e.calls = nil
	if _, body := get(t, httpClient(t, socket), "/v1.44/berth/containers/web/explain"); !strings.HasPrefix(body, `{"ID":"web",`) || !slices.Equal(e.calls, []string{"explain web"}) {
		t.Errorf("explain: %q %v", body, e.calls)
	}
	e.calls = nil
	if _, body := get(t, httpClient(t, socket), "/berth/top?interval=0.5"); !strings.Contains(body, `"CPUs":2`) || !slices.Equal(e.calls, []string{"watch 500ms"}) {
		t.Errorf("top: %q %v", body, e.calls)
	}
	if resp, body := get(t, httpClient(t, socket), "/berth/top?interval=0.1"); resp.StatusCode != 400 {
		t.Errorf("top too often: %s %q", resp.Status, body)
	}
	for _, path := range []string{"/images/a/b/get", "/images/get?names=a/b"} {
		e.calls = nil
		if resp, body := get(t, httpClient(t, socket), path); body != "images" || resp.Header.Get("Content-Type") != "application/x-tar" || e.calls[0] != "save [a/b]" {
			t.Errorf("%s: %s %q %v", path, resp.Status, body, e.calls)
		}
	}
}

// readAll checks a body.
func readAll(r io.ReadCloser, err error, want string) error {
	if err != nil {
		return err
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err == nil && strings.TrimSpace(string(body)) != want {
		err = fmt.Errorf("body %q, want %q", body, want)
	}
	return err
}

// TestCreate: the whole request, the platform, and the MAC address where old
// clients put it.
func TestCreate(t *testing.T) {
	e := &recorder{}
	socket, _ := serve(t, e)
	c := httpClient(t, socket)
	const body = `{"Image":"busybox","Cmd":["a"],"MacAddress":"02:42:ac:11:00:02","ExposedPorts":{"80/tcp":{}},
		"HostConfig":{"Memory":5,"Dns":["1.1.1.1"],"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}}}`
	for _, version := range []string{"1.43", "1.51", "1.52"} {
		resp, text := send(t, c, "POST", "/v"+version+"/containers/create?name=web&platform=linux/arm64/v8", body)
		if resp.StatusCode != 201 || text != `{"Id":"c1","Warnings":[]}`+"\n" {
			t.Fatalf("%s %s", resp.Status, text)
		}
		req, _ := e.body.(*container.CreateRequest)
		if req.Image != "busybox" || req.HostConfig.Memory != 5 || req.HostConfig.DNS[0] != netip.MustParseAddr("1.1.1.1") ||
			req.HostConfig.PortBindings[network.MustParsePort("80/tcp")][0].HostPort != "8080" {
			t.Errorf("engine got %+v %+v", req.Config, req.HostConfig)
		}
		moved := req.NetworkingConfig != nil && req.NetworkingConfig.EndpointsConfig["bridge"].MacAddress.String() == "02:42:ac:11:00:02"
		if moved != (version != "1.52") {
			t.Errorf("API %s: MAC address moved: %v", version, moved)
		}
	}
	if want := "create web &{arm64 linux  [] v8}"; e.calls[0] != want {
		t.Errorf("engine heard %q, want %q", e.calls[0], want)
	}
}

// keys returns the keys of a JSON object.
func keys(t *testing.T, v any) map[string]any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestShapesOfOldVersions: fields that were removed are there for those who
// know them and for nobody else.
func TestShapesOfOldVersions(t *testing.T) {
	c := &container.InspectResponse{ID: "c1", NetworkSettings: &container.NetworkSettings{SandboxKey: "k", Networks: map[string]*network.EndpointSettings{
		"bridge": {IPAddress: netip.MustParseAddr("10.0.0.2"), IPPrefixLen: 24, Gateway: netip.MustParseAddr("10.0.0.1"), EndpointID: "ep"}}}}
	settings, _ := keys(t, containerBefore52(c))["NetworkSettings"].(map[string]any)
	for key, want := range map[string]any{"IPAddress": "10.0.0.2", "IPPrefixLen": 24.0, "Gateway": "10.0.0.1", "EndpointID": "ep", "SandboxKey": "k", "GlobalIPv6Address": ""} {
		if settings[key] != want {
			t.Errorf("NetworkSettings.%s is %v, want %v", key, settings[key], want)
		}
	}
	img := &image.InspectResponse{ID: "i", Size: 9, Comment: "c"}
	if m := keys(t, imageBefore52(img, 43)); m["VirtualSize"] != 9.0 || m["Comment"] != "c" || m["Parent"] != "" {
		t.Errorf("image in 1.43: %v", m)
	}
	if m := keys(t, imageBefore52(img, 51)); m["VirtualSize"] != nil || m["Author"] != "" {
		t.Errorf("image in 1.51: %v", m)
	}
	if text, err := json.Marshal(imagesFor(43, []image.Summary{{Size: 3}})); err != nil || !strings.Contains(string(text), `"VirtualSize":3`) {
		t.Errorf("images in 1.43: %s %v", text, err)
	}
	if text, err := json.Marshal(imagesFor(44, nil)); err != nil || string(text) != "[]" {
		t.Errorf("no images: %s %v", text, err)
	}

	usage := &system.DiskUsage{ImageUsage: &image.DiskUsage{TotalSize: 8, TotalCount: 1, Items: []image.Summary{{ID: "i"}}},
		ContainerUsage: &container.DiskUsage{TotalCount: 1, Items: []container.Summary{{ID: "c"}}}}
	for _, test := range []struct {
		v          version
		verbose    bool
		legacy     bool // Images, LayersSize
		brief      bool // ImageUsage
		briefItems bool
	}{{51, false, true, false, false}, {52, false, true, true, false}, {52, true, false, true, true}, {53, false, false, true, false}, {56, true, false, true, true}} {
		m := keys(t, usageFor(test.v, usage, test.verbose))
		_, legacy := m["Images"]
		now, brief := m["ImageUsage"].(map[string]any)
		if _, items := now["Items"]; legacy != test.legacy || brief != test.brief || items != test.briefItems {
			t.Errorf("%+v: %v", test, m)
		}
		if legacy && (m["LayersSize"] != 8.0 || !reflect.DeepEqual(m["Volumes"], []any{})) {
			t.Errorf("%+v: %v", test, m)
		}
	}
	if len(usage.ImageUsage.Items) != 1 {
		t.Error("the engine's answer was changed")
	}
}

// TestQueries: what parameters mean, and which are refused.
func TestQueries(t *testing.T) {
	socket, _ := serve(t, &recorder{})
	c := httpClient(t, socket)
	for _, path := range []string{
		"POST /containers/a/stop?t=soon",
		"POST /containers/a/resize?h=1&w=x",
		"POST /containers/a/resize?h=70000&w=1",
		"GET /containers/json?filters=[]",
		"GET /containers/json?limit=x",
		"GET /events?since=yesterday",
		"GET /events?until=1.0000000001",
		"POST /images/create?fromImage=a&platform=linux",
		"GET /images/get",
		"DELETE /containers/a?link=1",
	} {
		method, url, _ := strings.Cut(path, " ")
		if resp, body := send(t, c, method, url, ""); resp.StatusCode != 400 && resp.StatusCode != 501 {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	for _, empty := range []string{"/volumes", "/containers/json"} {
		if resp, body := get(t, c, empty); resp.StatusCode != 200 || strings.Contains(body, "null") {
			t.Errorf("%s: %s %s", empty, resp.Status, body)
		}
	}
	if resp, _ := get(t, c, "/volumes/a"); resp.StatusCode != 404 {
		t.Errorf("volume: %s", resp.Status)
	}
}
