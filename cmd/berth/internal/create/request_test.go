package create

import (
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// record asks the docker command line what it would request for each case and
// writes testdata/requests.json anew: go test -run TestRequests -record
var record = flag.Bool("record", false, "record what the docker command requests")

// recorded is a command line and the request docker 28 makes of it.
type recorded struct {
	Args    []string
	Env     map[string]string `json:",omitempty"`
	Request map[string]any
}

const recordedFile = "testdata/requests.json"

func TestRequests(t *testing.T) {
	text, err := os.ReadFile(recordedFile)
	if err != nil {
		t.Fatal(err)
	}
	var cases []recorded
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	if *record {
		recordAll(t, cases)
	}
	if len(cases) == 0 {
		t.Fatal("no cases recorded")
	}
	for _, c := range cases {
		t.Run(strings.Join(c.Args, " "), func(t *testing.T) {
			got, err := request(c.Args, c.Env)
			if err != nil {
				t.Fatal(err)
			}
			want := prune(c.Request)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("request differs\n got %s\nwant %s", show(got), show(want))
			}
		})
	}
}

// request is what our flags make of a command line, as decoded JSON.
func request(args []string, env map[string]string) (any, error) {
	fs := pflag.NewFlagSet("create", pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.SetOutput(io.Discard)
	o := AddFlags(fs)
	o.LookupEnv = func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	req, err := o.Request(fs.Arg(0), fs.Args()[1:])
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	return prune(v), nil
}

func show(v any) string {
	text, _ := json.MarshalIndent(v, "", " ")
	return string(text)
}

// prune drops what an engine takes as not given, which docker's command
// sometimes spells out and sometimes does not: zero values, and the defaults
// of three fields that docker always sends.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if k == "MemorySwappiness" && e == float64(-1) || k == "default" {
				continue
			}
			p := prune(e)
			if k == "Binds" || k == "Ulimits" { // docker's order is a map's
				sortAny(p)
			}
			if p != nil || strings.Contains(k, "/") { // ports keep their empty values
				out[k] = p
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		var out []any
		for _, e := range v {
			out = append(out, prune(e))
		}
		if allNil(out) {
			return nil
		}
		return out
	case string:
		if v == "" {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	}
	return v
}

func sortAny(v any) {
	list, _ := v.([]any)
	sort.Slice(list, func(i, j int) bool { return show(list[i]) < show(list[j]) })
}

func allNil(list []any) bool {
	for _, e := range list {
		if e != nil {
			return false
		}
	}
	return true
}

// recordAll runs docker create against a server that keeps the request and
// refuses it.
func recordAll(t *testing.T, cases []recorded) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var last []byte
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.50")
		w.Header().Set("Ostype", "linux")
		if strings.HasSuffix(r.URL.Path, "/containers/create") {
			last, _ = io.ReadAll(r.Body)
			http.Error(w, `{"message":"recorded"}`, http.StatusTeapot)
		}
	})}
	go srv.Serve(l)
	defer srv.Close()
	for i := range cases {
		last = nil
		cmd := exec.Command(docker, append([]string{"-H", "unix://" + socket, "create"}, cases[i].Args...)...)
		cmd.Env = []string{"HOME=" + t.TempDir()}
		for k, v := range cases[i].Env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		out, _ := cmd.CombinedOutput()
		cases[i].Request = nil
		if err := json.Unmarshal(last, &cases[i].Request); err != nil {
			t.Fatalf("%q made no request: %s", cases[i].Args, out)
		}
		cases[i].Request = prune(cases[i].Request).(map[string]any)
	}
	text, err := json.MarshalIndent(cases, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordedFile, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRefusals(t *testing.T) {
	for args, want := range map[string]string{
		"-a stdfoo busybox":                             "valid streams are STDIN, STDOUT and STDERR",
		"-p 99999:80 busybox":                           "invalid",
		"-p a=b busybox":                                "unexpected key 'a'",
		"--expose 1:2 busybox":                          "invalid port format for --expose",
		"--mount type=bind,src=/a busybox":              "target is required",
		"--mount type=bind,dst=/a,tmpfs-size=1 busybox": "cannot mix 'tmpfs-*' options with mount type 'bind'",
		"--mount type=bind,dst=/a,foo=1 busybox":        "unexpected key 'foo'",
		"-v a:b:c:d busybox":                            "invalid volume specification: 'a:b:c:d'",
		"--network a --network a busybox":               `network "a" is specified multiple times`,
		"--network a --network host busybox":            "cannot attach both user-defined and non-user-defined",
		"--network name=a,ip=1.2.3.4 --ip 1.2.3.5 b":    "cannot specify both --ip and per-network IPv4 address",
		"--mac-address zz busybox":                      "zz is not a valid mac address",
		"--dns nope busybox":                            "IP address is not correctly formatted",
		"--add-host a:nope busybox":                     "invalid IP address in add-host",
		"-e =b busybox":                                 "invalid environment variable",
		"--env-file /nonexistent busybox":               "no such file or directory",
		"-l =b busybox":                                 "empty name",
		"-m 1x busybox":                                 "invalid",
		"--cpus 1e-12 busybox":                          "more than 9 decimals",
		"--memory-swappiness 101 busybox":               "Valid memory swappiness range is 0-100",
		"--device dev busybox":                          "invalid device specification: dev",
		"--blkio-weight-device /dev/sda:5 busybox":      "invalid weight",
		"--pid foo busybox":                             `--pid: invalid mode "foo"`,
		"--restart sometimes busybox":                   "unknown policy 'sometimes'",
		"--restart always --rm busybox":                 "cannot specify both --restart and --rm",
		"--no-healthcheck --health-cmd x busybox":       "--no-healthcheck conflicts",
		"--security-opt seccomp=/nonexistent busybox":   "opening seccomp profile (/nonexistent) failed: no such file or directory",
		"--security-opt foo busybox":                    "invalid --security-opt",
		"--log-opt foo busybox":                         "invalid logging option",
	} {
		_, err := request(strings.Fields(args), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", args, err, want)
		}
	}
}
