package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
)

// logEngine writes two lines, then follows until its context ends.
type logEngine struct {
	Engine
	tty  bool
	opt  engine.LogsOptions
	done chan struct{}
}

func (e *logEngine) ContainerLogs(ctx context.Context, ref string, opt engine.LogsOptions, out engine.LogWriter) error {
	if ref != "web" {
		return errdefs.ErrNotFound
	}
	e.opt = opt
	if err := out.Begin(e.tty); err != nil {
		return err
	}
	if err := out.WriteLog(engine.Stdout, []byte("one\n")); err != nil {
		return err
	}
	if err := out.WriteLog(engine.Stderr, []byte("two\n")); err != nil {
		return err
	}
	if err := out.Flush(); err != nil || !opt.Follow {
		return err
	}
	<-ctx.Done()
	close(e.done)
	return ctx.Err()
}

// TestLogs: framing with and without a terminal, options, errors.
func TestLogs(t *testing.T) {
	e := &logEngine{}
	socket, _ := serve(t, e)
	c := mobyClient(t, socket, "1.56")
	logs, err := c.ContainerLogs(t.Context(), "web", client.ContainerLogsOptions{
		ShowStdout: true, ShowStderr: true, Timestamps: true, Details: true, Tail: "5", Since: "1700000000.000000007"})
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, &stderr, logs)
	logs.Close()
	if err != nil || stdout.String() != "one\n" || stderr.String() != "two\n" {
		t.Errorf("stdout %q, stderr %q, %v", &stdout, &stderr, err)
	}
	want := engine.LogsOptions{Stdout: true, Stderr: true, Timestamps: true, Details: true, Tail: 5, Since: time.Unix(1700000000, 7)}
	if !e.opt.Since.Equal(want.Since) {
		t.Errorf("since %v, want %v", e.opt.Since, want.Since)
	}
	if e.opt.Since = want.Since; e.opt != want {
		t.Errorf("engine got %+v, want %+v", e.opt, want)
	}

	plain := httpClient(t, socket)
	e.tty = true
	if resp, body := get(t, plain, "/containers/web/logs?stdout=1&tail=all"); body != "one\ntwo\n" || e.opt.Tail != -1 {
		t.Errorf("with a terminal: %s %q, tail %d", resp.Status, body, e.opt.Tail)
	}
	if resp, body := get(t, plain, "/containers/web/logs"); resp.StatusCode != 400 || !strings.Contains(body, "choose at least one stream") {
		t.Errorf("no stream: %s %s", resp.Status, body)
	}
	if resp, _ := get(t, plain, "/containers/db/logs?stdout=1"); resp.StatusCode != 404 {
		t.Errorf("unknown container: %s", resp.Status)
	}
}

// TestFollowedLogs: lines come at once, and following ends with the client.
func TestFollowedLogs(t *testing.T) {
	e := &logEngine{tty: true, done: make(chan struct{})}
	socket, _ := serve(t, e)
	resp, err := httpClient(t, socket).Get("http://berth/containers/web/logs?stdout=1&follow=1")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	for _, want := range []string{"one\n", "two\n"} {
		if got, err := lines.ReadString('\n'); err != nil || got != want {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
	resp.Body.Close()
	<-e.done
}

// eventEngine yields one event.
type eventEngine struct{ Engine }

func (eventEngine) Subscribe(_ context.Context, f engine.Filters, since, _ time.Time) (<-chan events.Message, error) {
	if !f["type"]["container"] || since.Unix() != 5 {
		return nil, fmt.Errorf("filters %v since %v", f, since)
	}
	out := make(chan events.Message, 1)
	out <- events.Message{Type: events.ContainerEventType, Action: events.ActionDie,
		Actor: events.Actor{ID: "c1", Attributes: map[string]string{"image": "busybox", "exitCode": "3"}}, Time: 7}
	close(out)
	return out, nil
}

// TestEvents: the shapes and framings of each version.
func TestEvents(t *testing.T) {
	socket, _ := serve(t, eventEngine{})
	for _, test := range []struct {
		version, accept, mediaType, prefix string
		legacy                             bool
	}{
		{"1.41", "application/jsonl", "application/json", "{", true},
		{"1.52", "", "application/json", "{", false},
		{"1.56", "application/jsonl, application/json-seq;q=0.5", "application/jsonl", "{", false},
		{"1.52", "application/json-seq", "application/json-seq", "\x1e{", false},
	} {
		req, err := http.NewRequest(http.MethodGet, "http://berth/v"+test.version+`/events?since=5&filters={"type":["container"]}`, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", test.accept)
		resp, err := httpClient(t, socket).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.Header.Get("Content-Type") != test.mediaType || !strings.HasPrefix(string(body), test.prefix) {
			t.Errorf("%+v: %s %q %v", test, resp.Header.Get("Content-Type"), body, err)
		}
		var event map[string]any
		if err := json.Unmarshal(bytes.TrimLeft(body, "\x1e"), &event); err != nil {
			t.Fatal(err)
		}
		if _, has := event["status"]; has != test.legacy || (has && (event["status"] != "die" || event["id"] != "c1" || event["from"] != "busybox")) {
			t.Errorf("%+v: %s", test, body)
		}
		if event["Action"] != "die" {
			t.Errorf("%+v: %s", test, body)
		}
	}
	stream := mobyClient(t, socket, "1.56").Events(t.Context(), client.EventsListOptions{Since: "5", Filters: make(client.Filters).Add("type", "container")})
	if got := <-stream.Messages; got.Action != events.ActionDie || got.Actor.Attributes["exitCode"] != "3" {
		t.Errorf("client got %+v", got)
	}
}

// imageEngine pulls and loads.
type imageEngine struct {
	Engine
	events []engine.ProgressEvent
	err    error
	pulled string
	auth   string
}

func (e *imageEngine) ImagePull(_ context.Context, ref string, opt engine.ImagePullOptions) (*image.InspectResponse, error) {
	e.pulled = ref
	if opt.Auth != nil {
		e.auth = opt.Auth.Username
	}
	for _, event := range e.events {
		opt.Progress(event)
	}
	return &image.InspectResponse{ID: "sha256:aa"}, e.err
}

func (e *imageEngine) ImageLoad(_ context.Context, r io.Reader, opt engine.ImageLoadOptions) ([]string, error) {
	first := make([]byte, 4)
	if _, err := io.ReadFull(r, first); err != nil {
		return nil, err
	}
	opt.Progress(engine.ProgressEvent{ID: "layer", Status: "Loading layer", Current: 4, Total: 8})
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	opt.Progress(engine.ProgressEvent{Stream: "Loaded image: busybox:latest\n"})
	return []string{"busybox:latest"}, e.err
}

// messages reads a progress stream.
func messages(t *testing.T, r io.Reader) []message {
	t.Helper()
	var all []message
	for decoder := json.NewDecoder(r); ; {
		var m message
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
}

// TestPull: the lines of a pull, its name and credentials, and its two ways to
// fail.
func TestPull(t *testing.T) {
	e := &imageEngine{events: []engine.ProgressEvent{
		{ID: "latest", Status: "Pulling from library/busybox"},
		{ID: "l1", Status: "Downloading", Current: 3, Total: 9}, {ID: "l1", Status: "Pull complete"}, {Status: "Digest: sha256:bb"}}}
	socket, _ := serve(t, e)
	c := mobyClient(t, socket, "1.50")
	pull, err := c.ImagePull(t.Context(), "busybox", client.ImagePullOptions{RegistryAuth: "eyJ1c2VybmFtZSI6InVzZXIifQ=="})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range messages(t, pull) {
		lines = append(lines, strings.TrimSpace(m.ID+" "+m.Status))
	}
	pull.Close()
	want := "latest Pulling from library/busybox|l1 Downloading|l1 Pull complete|Digest: sha256:bb"
	if got := strings.Join(lines, "|"); got != want {
		t.Errorf("lines\n%s, want\n%s", got, want)
	}
	if e.pulled != "docker.io/library/busybox:latest" || e.auth != "user" {
		t.Errorf("engine pulled %q as %q", e.pulled, e.auth)
	}

	e.events = nil
	digest := "sha256:" + strings.Repeat("e", 64)
	resp, body := send(t, httpClient(t, socket), http.MethodPost, "/images/create?fromImage=127.0.0.1:5000/a/b&tag="+digest, "")
	if resp.StatusCode != 200 || e.pulled != "127.0.0.1:5000/a/b@"+digest {
		t.Errorf("by digest: %s %s, engine pulled %q", resp.Status, body, e.pulled)
	}

	e.err = errdefs.WithHint(errdefs.As(errdefs.ErrNotFound, errors.New("no such image")), "log in")
	resp, body = send(t, httpClient(t, socket), http.MethodPost, "/images/create?fromImage=nope", "")
	if resp.StatusCode != 404 || !strings.Contains(body, `"message":"no such image"`) {
		t.Errorf("failing at once: %s %s", resp.Status, body)
	}
	e.events = []engine.ProgressEvent{{ID: "l1", Status: "Downloading", Current: 1, Total: 9}}
	resp, body = send(t, httpClient(t, socket), http.MethodPost, "/images/create?fromImage=nope", "")
	all := messages(t, strings.NewReader(body))
	if last := all[len(all)-1]; resp.StatusCode != 200 || last.Detail == nil || *last.Detail != (errorDetail{404, "no such image", "log in"}) || last.ErrorText != "no such image" {
		t.Errorf("failing in the middle: %s %s", resp.Status, body)
	}
	for _, bad := range []string{"fromImage=UPPER", ""} {
		if resp, body := send(t, httpClient(t, socket), http.MethodPost, "/images/create?"+bad, ""); resp.StatusCode < 400 || resp.StatusCode == 404 {
			t.Errorf("%q: %s %s", bad, resp.Status, body)
		}
	}
}

// TestLoad: progress is read while the archive is still being sent.
func TestLoad(t *testing.T) {
	socket, _ := serve(t, &imageEngine{})
	body, sender := io.Pipe()
	go func() { _, _ = sender.Write([]byte("half")) }()
	resp, err := httpClient(t, socket).Post("http://berth/images/load", "application/x-tar", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	reader := bufio.NewReader(resp.Body)
	first, err := reader.ReadString('\n')
	if err != nil || !strings.Contains(first, "Loading layer") {
		t.Fatalf("%q, %v", first, err)
	}
	if _, err := sender.Write([]byte("rest")); err != nil {
		t.Fatal(err)
	}
	sender.Close()
	all := messages(t, reader)
	if len(all) != 1 || all[0].Stream != "Loaded image: busybox:latest\n" || all[0].Progress != nil {
		t.Errorf("%+v", all)
	}
	if _, quiet := send(t, httpClient(t, socket), http.MethodPost, "/images/load?quiet=1", "halfrest"); strings.TrimSpace(quiet) != `{"stream":"Loaded image: busybox:latest\n"}` {
		t.Errorf("quiet: %s", quiet)
	}
}

// TestSlowProgressReader: a client that reads nothing does not hold up the
// engine, and what it reads later ends with the newest figures.
func TestSlowProgressReader(t *testing.T) {
	const n = 200_000
	e := &imageEngine{}
	for i := range n {
		e.events = append(e.events, engine.ProgressEvent{ID: fmt.Sprint("l", i%3), Status: "Downloading", Current: int64(i + 1), Total: n})
	}
	returned := make(chan struct{})
	socket, _ := serve(t, &slowEngine{imageEngine: e, returned: returned})
	resp, err := httpClient(t, socket).Post("http://berth/images/create?fromImage=a", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-returned // before anything was read
	newest := map[string]int64{}
	for _, m := range messages(t, resp.Body) {
		if m.Progress != nil {
			newest[m.ID] = m.Progress.Current
		}
	}
	for i := range int64(3) {
		id := fmt.Sprint("l", (n-1-i)%3)
		if newest[id] != n-i {
			t.Errorf("%s ended at %d, want %d", id, newest[id], n-i)
		}
	}
}

// slowEngine tells when its pull is through.
type slowEngine struct {
	*imageEngine
	returned chan struct{}
}

func (e *slowEngine) ImagePull(ctx context.Context, ref string, opt engine.ImagePullOptions) (*image.InspectResponse, error) {
	defer close(e.returned)
	return e.imageEngine.ImagePull(ctx, ref, opt)
}

// statsEngine yields samples whose memory usage counts up.
type statsEngine struct{ Engine }

func (statsEngine) ContainerStats(context.Context, string) (*container.StatsResponse, error) {
	return sample(1), nil
}

func (statsEngine) ContainerStatsFollow(ctx context.Context, _ string, fn func(*container.StatsResponse) error) error {
	for i := range uint64(100) {
		s := sample(i + 1)
		if i > 0 {
			s.PreRead = time.Unix(int64(i), 0)
		}
		if err := fn(s); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func sample(n uint64) *container.StatsResponse {
	return &container.StatsResponse{Read: time.Unix(int64(n), 0), MemoryStats: container.MemoryStats{Usage: n}}
}

// TestStats: one sample, one sample with its predecessor, a stream.
func TestStats(t *testing.T) {
	socket, _ := serve(t, statsEngine{})
	c := httpClient(t, socket)
	for query, want := range map[string]uint64{"stream=0&one-shot=1": 1, "stream=0": 2} {
		_, body := get(t, c, "/containers/web/stats?"+query)
		var got container.StatsResponse
		if err := json.Unmarshal([]byte(body), &got); err != nil || got.MemoryStats.Usage != want {
			t.Errorf("%s: %s %v", query, body, err)
		}
	}
	resp, err := c.Get("http://berth/containers/web/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	decoder := json.NewDecoder(resp.Body)
	for i := range uint64(100) {
		var got container.StatsResponse
		if err := decoder.Decode(&got); err != nil || got.MemoryStats.Usage != i+1 {
			t.Fatalf("sample %d: %+v %v", i, got.MemoryStats, err)
		}
	}
	if resp, _ := get(t, c, "/containers/web/stats?one-shot=1"); resp.StatusCode != 400 {
		t.Errorf("stream and one-shot: %s", resp.Status)
	}
}
