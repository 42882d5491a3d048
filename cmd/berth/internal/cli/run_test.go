package cli

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// oneShot is an engine whose container prints a line on each stream, copies
// its input and ends with a code.
func oneShot(t *testing.T, code string) *fakeEngine {
	started := make(chan struct{})
	var once sync.Once
	return newFakeEngine(t, map[string]http.HandlerFunc{
		"POST /containers/create": says(201, `{"Id":"c1","Warnings":["be careful"]}`),
		"POST /containers/c1/attach": stream("multiplexed", func(conn net.Conn, in io.Reader) {
			<-started
			conn.Write(frame(1, "out\n"))
			conn.Write(frame(2, "err\n"))
			text, _ := io.ReadAll(in)
			conn.Write(frame(1, string(text)))
		}),
		"POST /containers/c1/wait": func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-started
			io.WriteString(w, code)
		},
		"POST /containers/c1/start": func(w http.ResponseWriter, r *http.Request) {
			once.Do(func() { close(started) })
			w.WriteHeader(204)
		},
	})
}

func TestRunStreams(t *testing.T) {
	e := oneShot(t, `{"StatusCode":42}`)
	code, out, errOut := e.run("typed", "run", "-i", "--rm", "busybox", "cat")
	if code != 42 || out != "out\ntyped" || errOut != "WARNING: be careful\nerr\n" {
		t.Errorf("exit code %d, output %q, errors %q", code, out, errOut)
	}
	asked := e.took()
	if !contains(asked, "POST /containers/c1/wait?condition=removed") || asked[len(asked)-1] != "POST /containers/c1/start" {
		t.Errorf("asked %q; the start must come last", asked)
	}
}

func TestRunWaitError(t *testing.T) {
	e := oneShot(t, `{"StatusCode":1,"Error":{"Message":"it was lost"}}`)
	code, _, errOut := e.run("", "run", "-i", "busybox")
	if code != 125 || !strings.HasSuffix(errOut, "berth: it was lost\n") {
		t.Errorf("exit code %d, errors %q", code, errOut)
	}
}

func TestRunEngineLost(t *testing.T) {
	e := oneShot(t, "")
	e.set("POST /containers/c1/wait", func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			conn.Close()
		}
	})
	code, _, errOut := e.run("", "run", "-i", "--name", "web", "busybox")
	want := "berth: lost the connection to the Berth engine: unexpected EOF\nhint: the container goes on without it; attach again with: berth attach web\n"
	if code != 125 || !strings.HasSuffix(errOut, want) {
		t.Errorf("exit code %d, errors %q", code, errOut)
	}
}

func TestRunDetached(t *testing.T) {
	e := oneShot(t, "")
	code, out, _ := e.run("", "run", "-d", "busybox")
	if code != 0 || out != "c1\n" {
		t.Errorf("exit code %d, output %q", code, out)
	}
	want := []string{"POST /containers/create", "POST /containers/c1/start"}
	if asked := e.took(); strings.Join(asked, " ") != strings.Join(want, " ") {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func TestStartExitCodes(t *testing.T) {
	for message, want := range map[string]int{
		`exec: \"x\": executable file not found in $PATH`: 127,
		`exec /x: no such file or directory`:              127,
		`exec: \"/etc\": permission denied`:               126,
		`exec: \"/etc\": is a directory`:                  126,
		`exec /x: exec format error`:                      126,
		`port is already allocated`:                       125,
	} {
		for _, flag := range []string{"-d", "-i"} {
			e := oneShot(t, "")
			e.set("POST /containers/c1/start", says(500, `{"message":"`+message+`"}`))
			if code, _, errOut := e.run("", "run", flag, "busybox"); code != want {
				t.Errorf("run %s, %s: exit code %d, want %d: %s", flag, message, code, want, errOut)
			}
		}
	}
}

func TestRunPulls(t *testing.T) {
	const progress = `{"status":"Pulling fs layer","id":"abc"}{"status":"Digest: x"}`
	for _, c := range []struct {
		flag   string
		there  bool
		pulled bool
		code   int
	}{
		{"missing", false, true, 0}, {"missing", true, false, 0}, {"always", true, true, 0}, {"never", false, false, 125},
	} {
		e := oneShot(t, `{"StatusCode":0}`)
		there := c.there
		e.set("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
			there = true
			says(200, progress)(w, r)
		})
		e.set("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
			if !there {
				says(404, `{"message":"No such image: busybox:latest"}`)(w, r)
				return
			}
			says(201, `{"Id":"c1"}`)(w, r)
		})
		code, out, errOut := e.run("", "run", "-i", "--pull", c.flag, "busybox")
		if code != c.code || strings.Contains(out, "Digest") {
			t.Errorf("%+v: exit code %d, output %q, errors %q", c, code, out, errOut)
		}
		if pulled := contains(e.took(), "POST /images/create?fromImage=busybox&tag=latest"); pulled != c.pulled {
			t.Errorf("%+v: pulled: %v", c, pulled)
		}
		if c.pulled && !strings.Contains(errOut, "abc: Pulling fs layer\nDigest: x\n") {
			t.Errorf("%+v: errors %q", c, errOut)
		}
	}
}

func TestRunPullFails(t *testing.T) {
	e := oneShot(t, "")
	e.set("POST /containers/create", says(404, `{"message":"No such image: busybox:latest"}`))
	e.set("POST /images/create", says(200, `{"status":"Pulling"}{"errorDetail":{"message":"layer is corrupt","hint":"pull again"}}`))
	cid := filepath.Join(t.TempDir(), "cid")
	code, _, errOut := e.run("", "run", "--cidfile", cid, "busybox")
	if code != 125 || !strings.HasSuffix(errOut, "berth: layer is corrupt\nhint: pull again\n") {
		t.Errorf("exit code %d, errors %q", code, errOut)
	}
	if _, err := os.Stat(cid); !os.IsNotExist(err) {
		t.Errorf("the file for the id was left behind: %v", err)
	}
}

func TestCIDFile(t *testing.T) {
	e := oneShot(t, `{"StatusCode":0}`)
	cid := filepath.Join(t.TempDir(), "cid")
	if code, _, errOut := e.run("", "create", "--cidfile", cid, "busybox"); code != 0 {
		t.Fatalf("exit code %d: %s", code, errOut)
	}
	if text, err := os.ReadFile(cid); err != nil || string(text) != "c1" {
		t.Errorf("file holds %q, %v", text, err)
	}
	e.took()
	code, _, errOut := e.run("", "run", "--cidfile", cid, "busybox")
	if code != 125 || !strings.Contains(errOut, "container ID file found") || len(e.took()) != 0 {
		t.Errorf("with the file there: exit code %d, %s", code, errOut)
	}
}

func TestSignalsAreForwarded(t *testing.T) {
	e := oneShot(t, `{"StatusCode":143}`)
	got := make(chan string, 4)
	e.set("POST /containers/c1/kill", func(w http.ResponseWriter, r *http.Request) {
		got <- r.URL.Query().Get("signal")
		w.WriteHeader(204)
	})
	cmd := e.command("run", "-i", "busybox")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var line [4]byte
	if _, err := io.ReadFull(out, line[:]); err != nil { // it runs
		t.Fatal(err)
	}
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGHUP, syscall.SIGINT} {
		cmd.Process.Signal(s)
		if name := <-got; name != map[syscall.Signal]string{syscall.SIGUSR1: "SIGUSR1", syscall.SIGHUP: "SIGHUP", syscall.SIGINT: "SIGINT"}[s] {
			t.Errorf("%v was forwarded as %s", s, name)
		}
	}
	in.Close()
	io.Copy(io.Discard, out)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 143 {
		t.Errorf("exit code %d, want 143", code)
	}
}

func TestUsageMistakes(t *testing.T) {
	e := newFakeEngine(t, nil)
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"run":                       {1, "berth: 'berth run' requires at least 1 argument\nhint: see 'berth run --help'\n"},
		"run --nosuch x":            {125, "berth: unknown flag: --nosuch\nhint: see 'berth run --help'\n"},
		"run --pull often x":        {125, "berth: invalid pull option: 'often': must be one of \"always\", \"missing\" or \"never\"\n"},
		"run -d -a stdout x":        {125, "berth: conflicting options: cannot specify both --attach and --detach\n"},
		"run -t -i x":               {1, "berth: the input device is not a TTY\nhint: leave out -t when input comes from a file or a pipe\n"},
		"run --detach-keys foo x":   {125, "berth: unknown key \"foo\" in detach keys \"foo\": want characters or ctrl-<key>, separated by commas\n"},
		"ps x":                      {1, "berth: 'berth ps' accepts no arguments\nhint: see 'berth ps --help'\n"},
		"ps --filter x":             {125, "berth: invalid argument \"x\" for \"-f, --filter\" flag: bad format of filter (expected name=value)\nhint: see 'berth ps --help'\n"},
		"rename x":                  {1, "berth: 'berth rename' requires 2 arguments\nhint: see 'berth rename --help'\n"},
		"imagse":                    {1, "berth: unknown command: berth imagse\nhint: did you mean image or images?\n"},
		"container nosuch":          {1, "berth: unknown command: berth container nosuch\nhint: see 'berth container --help'\n"},
		"logs --since tomorrow x":   {1, "berth: invalid time \"tomorrow\": want a date like 2013-01-02T13:23:37Z, seconds since 1970 or a duration like 10m\n"},
		"update x":                  {1, "berth: you must provide one or more flags when using this command\nhint: see 'berth update --help'\n"},
		"inspect --type secret x":   {1, "berth: \"secret\" is not a valid value for --type: want container, image, network or volume\n"},
		"-H foo ps":                 {1, "berth: invalid engine address \"foo\": want unix:///path or tcp://host:port\n"},
		"tag x y@sha256:0":          {1, "berth: refusing to create a tag with a digest reference\n"},
		"pull -a x:y":               {1, "berth: tag can't be used with --all-tags/-a\n"},
		"start -a x y":              {1, "berth: cannot start and attach multiple containers at once\n"},
		"load -i /nonexistent":      {1, "berth: open /nonexistent: no such file or directory\n"},
		"-H unix:///nonexistent ps": {1, "berth: cannot reach the Berth engine at unix:///nonexistent: no such file or directory\nhint: no engine is listening there; is berthd running?\n"},
	} {
		code, out, errOut := e.run("", strings.Fields(line)...)
		if os.Geteuid() != 0 {
			errOut = strings.Replace(errOut, "no engine is running; start it with: sudo systemctl start berthd, or: sudo berth info", "no engine is listening there; is berthd running?", 1)
		}
		if code != want.code || errOut != want.text || out != "" {
			t.Errorf("berth %s: exit code %d, output %q, errors\n%swant %d\n%s", line, code, out, errOut, want.code, want.text)
		}
	}
	if asked := e.took(); len(asked) > 0 {
		t.Errorf("a mistake reached the engine: %q", asked)
	}
}

func TestSeveralContainers(t *testing.T) {
	e := newFakeEngine(t, map[string]http.HandlerFunc{
		"POST /containers/a/stop": says(204, ""),
		"POST /containers/c/stop": says(304, ""),
		"POST /containers/b/stop": says(404, `{"message":"No such container: b"}`),
	})
	code, out, errOut := e.run("", "stop", "a", "b", "c", "d")
	if code != 1 || out != "a\nc\n" || errOut != "berth: No such container: b\nberth: asked\n" {
		t.Errorf("exit code %d, output %q, errors %q", code, out, errOut)
	}
	code, _, errOut = e.run("", "-H", "unix:///nonexistent", "stop", "a", "b")
	if code != 1 || strings.Count(errOut, "cannot reach") != 1 {
		t.Errorf("exit code %d, errors %q", code, errOut)
	}
}

func TestExec(t *testing.T) {
	e := newFakeEngine(t, map[string]http.HandlerFunc{
		"POST /containers/c1/exec": says(201, `{"Id":"e1"}`),
		"POST /exec/e1/start": stream("multiplexed", func(conn net.Conn, in io.Reader) {
			text, _ := io.ReadAll(in)
			conn.Write(frame(2, "err\n"))
			conn.Write(frame(1, string(text)))
		}),
		"GET /exec/e1/json": says(200, `{"ID":"e1","ExitCode":7,"Running":false}`),
	})
	code, out, errOut := e.run("typed", "exec", "-i", "c1", "cat", "-n")
	if code != 7 || out != "typed" || errOut != "err\n" {
		t.Errorf("exit code %d, output %q, errors %q", code, out, errOut)
	}
	e.set("POST /exec/e1/start", says(400, `{"message":"exec: \"x\": executable file not found in $PATH"}`))
	if code, _, errOut := e.run("", "exec", "c1", "x"); code != 127 {
		t.Errorf("exit code %d, errors %q", code, errOut)
	}
	if code, _, errOut := e.run("", "exec", "c2", "x"); code != 1 || errOut != "berth: asked\n" {
		t.Errorf("exit code %d, errors %q", code, errOut)
	}
}

func TestAttachRefused(t *testing.T) {
	for state, want := range map[string]string{
		`{"Running":false}`:                  "it is not running",
		`{"Running":true,"Paused":true}`:     "it is paused",
		`{"Running":true,"Restarting":true}`: "it is restarting",
	} {
		e := newFakeEngine(t, map[string]http.HandlerFunc{"GET /containers/c1/json": says(200, `{"Id":"c1","Config":{},"State":`+state+`}`)})
		if code, _, errOut := e.run("", "attach", "c1"); code != 1 || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit code %d, errors %q", state, code, errOut)
		}
	}
}

func TestLogs(t *testing.T) {
	for name, c := range map[string]struct {
		media, body, out, err string
	}{
		"frames": {"application/vnd.docker.multiplexed-stream", string(frame(1, "a\n")) + string(frame(2, "b\n")), "a\n", "b\n"},
		"raw":    {"application/vnd.docker.raw-stream", "a\r\n", "a\r\n", ""},
	} {
		e := newFakeEngine(t, map[string]http.HandlerFunc{"GET /containers/c1/logs": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", c.media)
			io.WriteString(w, c.body)
		}})
		code, out, errOut := e.run("", "logs", "--tail", "3", "-t", "--since", "12.5", "c1")
		if code != 0 || out != c.out || errOut != c.err {
			t.Errorf("%s: exit code %d, output %q, errors %q", name, code, out, errOut)
		}
		want := "GET /containers/c1/logs?since=12.5&stderr=1&stdout=1&tail=3&timestamps=1"
		if asked := e.took(); len(asked) != 1 || asked[0] != want {
			t.Errorf("%s: asked %q, want %s alone", name, asked, want)
		}
	}
}
