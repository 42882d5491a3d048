package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/spf13/pflag"
)

// writeConfig writes a configuration file and returns its path.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "berthd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDocumentedDefaults: dist/berthd.toml names every key and states the
// defaults the daemon has without a file.
func TestDocumentedDefaults(t *testing.T) {
	path := filepath.Join("..", "..", "dist", "berthd.toml")
	got := defaults()
	if err := readFile(path, true, got); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	for _, list := range []*[]string{&want.Hosts, &want.InsecureRegistries, &want.Labels} {
		*list = []string{}
	}
	want.LogOptions, want.StorageOptions = map[string]string{}, map[string]string{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("dist/berthd.toml gives\n%+v, the defaults are\n%+v", got, want)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for field := range reflect.TypeFor[config]().Fields() {
		key := field.Tag.Get("toml")
		if field.Type.Kind() == reflect.Struct { // a section
			if !bytes.Contains(text, []byte("\n["+key+"]\n")) {
				t.Errorf("dist/berthd.toml has no section %s", key)
			}
			for f := range field.Type.Fields() {
				if key := f.Tag.Get("toml"); !bytes.Contains(text, []byte("\n"+key+" = ")) {
					t.Errorf("dist/berthd.toml does not document %s", key)
				}
			}
		} else if key != "" && !bytes.Contains(text, []byte("\n"+key+" = ")) {
			t.Errorf("dist/berthd.toml does not document %s", key)
		}
	}
}

// TestFlagsOverrideFile: a flag beats the file, the file beats the default,
// and a list flag replaces the file's list.
func TestFlagsOverrideFile(t *testing.T) {
	path := writeConfig(t, `
run-root = "/run/a"
log-level = "warn"
stop-timeout = 3
init = true
log-driver = "local"
insecure-registries = ["a:1", "b:2"]
[log-options]
max-size = "10m"
[storage-options]
size = "10g"
`)
	cfg, act, err := readConfig([]string{"--config", path, "--log-level=debug", "--insecure-registry", "c:3", "--insecure-registry=d:4"}, io.Discard)
	if err != nil || act != runDaemon {
		t.Fatal(act, err)
	}
	want := defaults()
	want.RunRoot, want.LogLevel, want.StopTimeout = "/run/a", "debug", 3
	want.InsecureRegistries = []string{"c:3", "d:4"}
	want.LogOptions = map[string]string{"max-size": "10m"}
	want.StorageOptions = map[string]string{"size": "10g"}
	want.LogDriver, want.Init = "local", true
	want.Hosts = []string{"unix:///run/a/berth.sock"}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

// TestBadConfiguration: each mistake is named, with its line when it is in the
// file.
func TestBadConfiguration(t *testing.T) {
	for _, test := range []struct{ file, flag, want string }{
		{file: "log-level = \"info\"\n\nlog-levle = \"info\"\n", want: `line 3: unknown key "log-levle"`},
		{file: "[qos]\nclass = 1\n", want: `line 1: unknown key "qos"`},
		{file: "stop-timeout = \"ten\"", want: "line 1, column 16"},
		{file: "hosts = [", want: "line 1"},
		{file: "log-level = \"loud\"", want: `log-level "loud"`},
		{file: "log-format = \"xml\"", want: `log-format "xml"`},
		{file: "run-root = \"berth\"", want: `run-root "berth": not an absolute path`},
		{file: "bridge-subnet = \"10.0.0.1\"", want: "bridge-subnet"},
		{file: "shm-size = \"lots\"", want: "shm-size"},
		{file: "log-driver = \"gelf\"", want: `unknown log driver "gelf"`},
		{file: "[log-options]\nmax-sizes = \"1m\"", want: "unknown log opt 'max-sizes' for json-file log driver"},
		{file: "log-driver = \"syslog\"\n[log-options]\nsyslog-address = \"ftp://x\"", want: `unknown scheme "ftp"`},
		{file: "[storage-options]\nsize = \"lots\"", want: "invalid storage option size=lots"},
		{flag: "--storage-opt=sise=1g", want: `unknown storage option "sise"`},
		{file: "init = 1", want: "line 1"},
		{file: "[image]\nsnapshotter = \"zfs\"", want: `image.snapshotter "zfs"`},
		{file: "[image]\nmax-layer-size = \"0\"", want: "image.max-layer-size"},
		{file: "[image]\nmax-layer-files = -1", want: "image.max-layer-files"},
		{flag: "--host=0.0.0.0:2375", want: "want unix:///path"},
		{flag: "--state-root=/", want: "state-root"},
		{flag: "--nonsense", want: "unknown flag"},
		{flag: "serve", want: `unexpected argument "serve"`},
	} {
		args := []string{"--config", writeConfig(t, test.file)}
		if test.flag != "" {
			args = append(args, test.flag)
		}
		if _, _, err := readConfig(args, io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("file %q flag %q: error %v, want %q", test.file, test.flag, err, test.want)
		}
		var stderr bytes.Buffer
		code := run(args, io.Discard, &stderr)
		_, rest, _ := strings.Cut(stderr.String(), "\n")
		if code != exitUsage || rest != "" && (!strings.HasPrefix(rest, "hint: ") || strings.Count(rest, "\n") != 1) {
			t.Errorf("file %q flag %q: exit %d, %q, want one line, or a hint's besides, and %d", test.file, test.flag, code, &stderr, exitUsage)
		}
	}
}

// TestConfigFileMayBeMissing: unless it was asked for.
func TestConfigFileMayBeMissing(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.toml")
	if err := readFile(missing, false, defaults()); err != nil {
		t.Error(err)
	}
	if _, _, err := readConfig([]string{"--config", missing}, io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want not exist", err)
	}
}

// TestActions: version, check and help do not start anything.
func TestActions(t *testing.T) {
	path := writeConfig(t, "")
	for flag, want := range map[string]string{"--version": "berthd version dev", "--check": "configuration is valid", "--help": "Usage: berthd"} {
		var stdout, stderr bytes.Buffer
		if code := run([]string{"--config", path, flag}, &stdout, &stderr); code != exitOK || !strings.Contains(stdout.String(), want) || stderr.Len() > 0 {
			t.Errorf("%s: exit %d, %q, %q", flag, code, &stdout, &stderr)
		}
	}
	if _, _, err := readConfig([]string{"-h"}, io.Discard); !errors.Is(err, pflag.ErrHelp) {
		t.Error(err)
	}
}

// TestHosts: what may be listened on.
func TestHosts(t *testing.T) {
	for host, want := range map[string]string{
		"unix:///run/x.sock":     "",
		"tcp://127.0.0.1:2375":   "",
		"tcp://[::1]:2375":       "",
		"tcp://0.0.0.0:2375":     "only loopback",
		"tcp://192.168.1.1:2375": "only loopback",
		"tcp://localhost:2375":   "want an IP address",
		"unix://run/x.sock":      "not an absolute path",
		"fd://":                  "unknown protocol",
		"/run/x.sock":            "want unix:///path",
	} {
		_, _, err := splitHost(host)
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", host, err, want)
		}
	}
	if _, _, err := splitHost("tcp://0.0.0.0:1"); errdefs.Hint(err) == "" {
		t.Error("an open port has no hint")
	}
}
