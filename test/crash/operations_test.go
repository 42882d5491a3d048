package crash_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// operation changes the engine's state from one that ensure makes to another.
type operation struct {
	name string
	// ensure makes the state before, from whatever is there.
	ensure func(r *rig) error
	// act is the operation; it returns when its result is to be seen.
	act func(r *rig) error
	// anew begins again from ensure before the repetition, because something may be
	// going on in the background.
	anew bool
}

// The commands of containers: one that ends with 0 when asked to, one that fails.
var (
	waits = []string{"sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait; done"}
	fails = []string{"sh", "-c", "echo run >>/data/runs; exit 3"}
)

// config is a container's create request: plain, or with all that a start makes.
func config(cmd []string, more map[string]any) map[string]any {
	host := map[string]any{"NetworkMode": "none"}
	for k, v := range more {
		host[k] = v
	}
	return map[string]any{"Image": "box", "Cmd": cmd, "Volumes": map[string]any{"/data": map[string]any{}}, "HostConfig": host}
}

// bare is a container without a volume, which a prune leaves alone.
func bare() map[string]any {
	cfg := config(waits, nil)
	delete(cfg, "Volumes")
	return cfg
}

func full() map[string]any {
	return config(waits, map[string]any{
		"NetworkMode": "bridge", "IpcMode": "shareable",
		"PortBindings": map[string]any{"80/tcp": []map[string]string{{"HostIp": "127.0.0.1", "HostPort": port}}},
	})
}

// have makes a container of that name be in the state.
func have(name, state string, cfg map[string]any) func(r *rig) error {
	return func(r *rig) error {
		c, err := r.inspect(name)
		if err == nil && c.State.Status == state && c.HostConfig.Memory == 0 {
			return nil
		}
		if err := r.lack(name); err != nil {
			return err
		}
		if err := r.do("POST", "/containers/create?name="+name, cfg, nil); err != nil || state == "created" {
			return err
		}
		if err := r.do("POST", "/containers/"+name+"/start", nil, nil); err != nil {
			return err
		}
		if err := r.awaitReady(name); err != nil || state == "running" {
			return err
		}
		if state == "paused" {
			return r.do("POST", "/containers/"+name+"/pause", nil, nil)
		}
		return r.do("POST", "/containers/"+name+"/kill", nil, nil)
	}
}

// awaitReady waits until the container's command has set its trap: the first process
// of a container ignores signals that it has no handler for.
func (r *rig) awaitReady(name string) error {
	return r.until(func() (bool, error) {
		text, err := r.get("/containers/" + name + "/logs?stdout=1")
		return bytes.Contains(text, []byte("ready")), err
	})
}

// lack makes sure that no container has the name.
func (r *rig) lack(name string) error {
	err := r.do("DELETE", "/containers/"+name+"?force=1&v=1", nil, nil)
	if status(err) == http.StatusNotFound || status(err) == http.StatusConflict && strings.Contains(err.Error(), "removing") {
		return nil
	}
	return err
}

// lackImage makes sure that there is no such image.
func lackImage(name string) func(r *rig) error {
	return func(r *rig) error {
		err := r.do("DELETE", "/images/"+name+"?force=1", nil, nil)
		if status(err) == http.StatusNotFound {
			return nil
		}
		return err
	}
}

// lackVolume makes sure that there is no such volume.
func lackVolume(name string) func(r *rig) error {
	return func(r *rig) error { return r.do("DELETE", "/volumes/"+name+"?force=1", nil, nil) }
}

func post(path string, in any) func(r *rig) error {
	return func(r *rig) error { return r.do("POST", path, in, nil) }
}

func operations() []operation {
	one := func(path string) func(r *rig) error { return post("/containers/one/"+path, nil) }
	return []operation{
		{name: "create", ensure: func(r *rig) error { return r.lack("one") }, act: post("/containers/create?name=one", full())},
		{name: "start", ensure: have("one", "created", full()), act: one("start")},
		{name: "stop", ensure: have("one", "running", full()), act: one("stop")},
		{name: "kill", ensure: have("one", "running", config(waits, nil)), act: one("kill")},
		{name: "restart", ensure: have("one", "running", config(waits, nil)), act: one("restart")},
		{name: "pause", ensure: have("one", "running", config(waits, nil)), act: one("pause")},
		{name: "unpause", ensure: have("one", "paused", config(waits, nil)), act: one("unpause")},
		{name: "cp", ensure: ensureUncopied, act: func(r *rig) error {
			return r.do("PUT", "/containers/one/archive?path=/", bytes.NewReader(tarOf("copied")), nil)
		}},
		{name: "rename", ensure: func(r *rig) error {
			return errors.Join(r.lack("other"), have("one", "created", config(waits, nil))(r))
		}, act: one("rename?name=other")},
		{name: "update", ensure: have("one", "running", config(waits, nil)),
			act: post("/containers/one/update", map[string]any{"Memory": 64 << 20, "MemorySwap": 64 << 20})},
		{name: "exec", ensure: have("one", "running", config(waits, nil)), act: actExec},
		{name: "upgrade-keeper", ensure: have("one", "running", config(waits, nil)), act: post("/berth/system/upgrade-keeper", nil)},
		{name: "commit", ensure: func(r *rig) error {
			return errors.Join(lackImage("committed")(r), have("one", "running", config(waits, nil))(r))
		}, act: post("/commit?container=one&repo=committed", map[string]any{})},
		{name: "rm", ensure: have("one", "exited", full()), act: func(r *rig) error { return r.do("DELETE", "/containers/one?v=1", nil, nil) }},
		{name: "rm-f", ensure: have("one", "running", full()), act: actRemove},
		{name: "rm-at-exit", ensure: have("one", "running", config(waits, map[string]any{"AutoRemove": true})), act: actEnd},
		{name: "policy", ensure: ensurePolicy, act: actPolicy, anew: true},
		{name: "import", ensure: lackImage("imported"), act: func(r *rig) error {
			return r.do("POST", "/images/create?fromSrc=-&repo=imported", bytes.NewReader(tarOf("imported")), nil)
		}},
		{name: "load", ensure: lackImage("boxed"), act: func(r *rig) error { return r.do("POST", "/images/load", bytes.NewReader(r.archive), nil) }},
		{name: "pull", ensure: func(r *rig) error { return lackImage(r.reg.host + "/pulled:latest")(r) }, act: func(r *rig) error {
			return r.do("POST", "/images/create?fromImage="+url.QueryEscape(r.reg.host+"/pulled")+"&tag=latest", nil, nil)
		}},
		{name: "push", ensure: ensureUnpushed, act: func(r *rig) error {
			return r.do("POST", "/images/"+r.reg.host+"/pushed/push?tag=latest", nil, nil)
		}},
		{name: "tag", ensure: lackImage("tagged"), act: post("/images/box/tag?repo=tagged", nil)},
		{name: "rmi", ensure: func(r *rig) error { return r.do("POST", "/images/load", bytes.NewReader(r.archive), nil) },
			act: func(r *rig) error { return r.do("DELETE", "/images/boxed", nil, nil) }},
		{name: "volume-create", ensure: lackVolume("hold"), act: post("/volumes/create", map[string]any{"Name": "hold"})},
		{name: "volume-rm", ensure: post("/volumes/create", map[string]any{"Name": "hold"}),
			act: func(r *rig) error { return r.do("DELETE", "/volumes/hold", nil, nil) }},
		{name: "volume-prune", ensure: post("/volumes/create", map[string]any{"Name": "hold"}),
			act: post("/volumes/prune?filters="+url.QueryEscape(`{"all":["true"]}`), nil)},
		{name: "prune", ensure: have("one", "exited", bare()), act: post("/containers/prune", nil)},
		{name: "image-prune", ensure: ensureDangling, act: post("/images/prune", nil)},
	}
}

// ensureUncopied makes a container that has an older file where one is to be copied.
func ensureUncopied(r *rig) error {
	if err := have("one", "running", config(waits, nil))(r); err != nil {
		return err
	}
	r.watched = "/copied"
	return r.do("PUT", "/containers/one/archive?path=/", bytes.NewReader(tarWith("copied", "older")), nil)
}

// ensureUnpushed makes an image that its registry does not have.
func ensureUnpushed(r *rig) error {
	name := r.reg.host + "/pushed"
	if err := lackImage(name)(r); err != nil {
		return err
	}
	r.reg.forgetPushed()
	return r.do("POST", "/images/create?fromSrc=-&repo="+url.QueryEscape(name)+"&tag=latest", bytes.NewReader(tarOf("pushed")), nil)
}

// actExec executes a command and waits for its end.
func actExec(r *rig) error {
	var made struct{ Id string }
	if err := r.do("POST", "/containers/one/exec", map[string]any{"Cmd": []string{"true"}}, &made); err != nil {
		return err
	}
	if err := r.do("POST", "/exec/"+made.Id+"/start", map[string]any{"Detach": true}, nil); err != nil {
		return err
	}
	return r.until(func() (bool, error) {
		var x struct{ Running bool }
		err := r.do("GET", "/exec/"+made.Id+"/json", nil, &x)
		return !x.Running, err
	})
}

// actRemove removes a running container. The next engine goes on with a removal that
// was cut short, and may be faster than the repetition.
func actRemove(r *rig) error {
	err := r.do("DELETE", "/containers/one?v=1&force=1", nil, nil)
	if status(err) == http.StatusNotFound {
		return nil
	}
	return err
}

// actEnd ends a container that is removed at its end.
func actEnd(r *rig) error {
	if err := r.do("POST", "/containers/one/kill?signal=TERM", nil, nil); err != nil {
		return err
	}
	return r.until(func() (bool, error) {
		_, err := r.inspect("one")
		if status(err) == http.StatusNotFound {
			return true, nil
		}
		return false, err
	})
}

// ensurePolicy makes a container that fails and is started once more.
func ensurePolicy(r *rig) error {
	if err := r.lack("one"); err != nil {
		return err
	}
	return r.do("POST", "/containers/create?name=one", config(fails, map[string]any{
		"RestartPolicy": map[string]any{"Name": "on-failure", "MaximumRetryCount": 1}}), nil)
}

// actPolicy starts a container that fails and is started once more.
func actPolicy(r *rig) error {
	if err := r.do("POST", "/containers/one/start", nil, nil); err != nil {
		return err
	}
	err := r.until(func() (bool, error) {
		c, err := r.inspect("one")
		if err != nil || len(c.Mounts) != 1 {
			return false, err
		}
		runs, err := os.ReadFile(filepath.Join(c.Mounts[0].Source, "runs"))
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return bytes.Count(runs, []byte("run")) > 1 && c.State.Status == "exited" && c.RestartCount == 1, err
	})
	if err != nil {
		return err
	}
	// The second run may have written before the engine has noted that it runs.
	return r.do("POST", "/containers/one/wait?condition=not-running", nil, nil)
}

// ensureDangling makes one image without a name.
func ensureDangling(r *rig) error {
	if state, err := r.observe(); err != nil || strings.Contains(state, "image without a name") {
		return err
	}
	return r.do("POST", "/images/create?fromSrc=-", bytes.NewReader(tarOf("dangling")), nil)
}

// until asks again and again.
func (r *rig) until(done func() (bool, error)) error {
	for deadline := time.Now().Add(patience); ; {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("it takes too long")
		}
	}
}

// inspected is what matters of a container.
type inspected struct {
	Id, Name     string
	RestartCount int
	State        struct {
		Status   string
		ExitCode int
		Running  bool
	}
	Mounts     []struct{ Source string }
	HostConfig struct {
		Memory     int64
		AutoRemove bool
	}
}

func (r *rig) inspect(ref string) (inspected, error) {
	var c inspected
	err := r.do("GET", "/containers/"+ref+"/json", nil, &c)
	return c, err
}

// observe is the engine's state in words: containers, images, volumes.
func (r *rig) observe() (string, error) {
	var list []struct{ Id string }
	if err := r.do("GET", "/containers/json?all=1", nil, &list); err != nil {
		return "", err
	}
	var lines []string
	for _, entry := range list {
		c, err := r.inspect(entry.Id)
		if status(err) == http.StatusNotFound {
			continue
		}
		if err != nil {
			return "", err
		}
		text, err := r.content(&c)
		if err != nil {
			return "", err
		}
		lines = append(lines, r.describe(&c)+text)
	}
	var images []struct{ RepoTags []string }
	if err := r.do("GET", "/images/json", nil, &images); err != nil {
		return "", err
	}
	for _, img := range images {
		name := strings.Join(img.RepoTags, " ")
		if name == "" || name == "<none>:<none>" {
			name = "without a name"
		}
		lines = append(lines, "image "+name)
	}
	slices.Sort(lines)
	var volumes struct{ Volumes []struct{ Name string } }
	if err := r.do("GET", "/volumes", nil, &volumes); err != nil {
		return "", err
	}
	if r.reg.has("pushed:latest") {
		lines = append(lines, "the registry has pushed")
	}
	return strings.Join(append(lines, fmt.Sprintf("%d volumes", len(volumes.Volumes))), "\n"), nil
}

// content is what the watched file of a container says, in words; "" without one.
func (r *rig) content(c *inspected) (string, error) {
	if r.watched == "" {
		return "", nil
	}
	archive, err := r.get("/containers/" + c.Id + "/archive?path=" + url.QueryEscape(r.watched))
	switch {
	case status(err) == http.StatusNotFound:
		return "", nil
	case status(err) == http.StatusConflict: // it has just ended: nothing that would last
		return " is in between", nil
	case err != nil:
		return "", err
	}
	t := tar.NewReader(bytes.NewReader(archive))
	if _, err := t.Next(); err != nil {
		return "", err
	}
	text, err := io.ReadAll(t)
	return " says " + string(text), err
}

// describe is a container in words: its name, state, exit code and limit.
func (r *rig) describe(c *inspected) string {
	text := "container " + strings.TrimPrefix(c.Name, "/") + " " + c.State.Status
	if c.State.Status == "exited" {
		text += fmt.Sprintf(" %d", c.State.ExitCode)
	}
	if c.HostConfig.Memory != 0 {
		text += fmt.Sprintf(" memory %d", c.HostConfig.Memory)
	}
	if c.State.Running {
		text += " limit " + r.limit(c.Id)
	}
	if c.HostConfig.AutoRemove {
		text += " --rm"
	}
	return text
}

// limit is what the kernel says of a running container's memory.
func (r *rig) limit(id string) string {
	for _, file := range []string{"/sys/fs/cgroup" + cgroup + "/" + id + "/memory.max",
		"/sys/fs/cgroup/memory" + cgroup + "/" + id + "/memory.limit_in_bytes"} {
		if text, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	return "unknown"
}

// tarOf is a root file system with one file.
func tarOf(name string) []byte { return tarWith(name, name) }

func tarWith(name, text string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))})
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err) // a buffer takes everything
	}
	return b.Bytes()
}

// clear removes all containers, images and volumes but the image box.
func (r *rig) clear() error {
	r.watched = ""
	var list []struct{ Id string }
	if err := r.do("GET", "/containers/json?all=1", nil, &list); err != nil {
		return err
	}
	for _, c := range list {
		if err := r.lack(c.Id); err != nil {
			return err
		}
	}
	var images []struct {
		Id       string
		RepoTags []string
	}
	if err := r.do("GET", "/images/json", nil, &images); err != nil {
		return err
	}
	if err := r.do("POST", "/volumes/prune?filters="+url.QueryEscape(`{"all":["true"]}`), nil, nil); err != nil {
		return err
	}
	for _, img := range images {
		ref := img.Id
		if slices.Contains(img.RepoTags, "box:latest") {
			continue
		}
		if err := lackImage(ref)(r); err != nil {
			return err
		}
	}
	return nil
}

// lost is a state after the keeper was killed: what ran has ended with 255.
func lost(state string) string {
	var lines []string
	for line := range strings.Lines(state) {
		line = strings.TrimSuffix(line, "\n")
		f := strings.Fields(line)
		if f[0] != "container" || f[2] != "running" && f[2] != "paused" {
			lines = append(lines, line)
			continue
		}
		if strings.HasSuffix(line, " --rm") {
			continue
		}
		text := "container " + f[1] + " exited 255"
		for _, stays := range []string{"memory", "says"} {
			if i := slices.Index(f, stays); i > 0 {
				text += " " + stays + " " + f[i+1]
			}
		}
		lines = append(lines, text)
	}
	return strings.Join(lines, "\n")
}
