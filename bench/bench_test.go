package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestVersionIn(t *testing.T) {
	for text, want := range map[string]string{
		"runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1\nspec: 1.0.2-dev\n":             "1.1.5+ds1",
		"berth-oci version dev\nspec: 1.3.0\n":                                       "dev",
		"Docker version 28.2.2, build e6534b4\n":                                     "28.2.2",
		"netavark 1.4.0\n":                                                           "1.4.0",
		"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1\n":      "1.6.20~ds1",
		"containerd-shim-runc-v2:\n  Version:  1.6.20~ds1\n  Revision: 1.6.20~ds1\n": "1.6.20~ds1",
		"no number": "",
		"version":   "",
	} {
		if got := versionIn(text); got != want {
			t.Errorf("versionIn(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestField(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("a : 1\nmodel name\t: A CPU: fast\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := field(file, "model name", ":"); got != "A CPU: fast" {
		t.Errorf("got %q", got)
	}
	if got := field(file, "none", ":"); got != "" {
		t.Errorf("a field that is not there is %q", got)
	}
}

func TestPssIn(t *testing.T) {
	got, err := pssIn("00400000-7ffd ---p [rollup]\nRss:    1234 kB\nPss:                 375 kB\nPss_Dirty:  99 kB\n")
	if got != 375 || err != nil {
		t.Errorf("got %d %v, want 375", got, err)
	}
	if _, err := pssIn("Rss: 1 kB\n"); err == nil {
		t.Error("text without the figure is accepted")
	}
}

func TestProportionalSize(t *testing.T) {
	name, kib, err := proportionalSize(os.Getpid())
	if name != filepath.Base(os.Args[0]) || kib <= 0 || err != nil {
		t.Errorf("this process is %q, %d KiB, %v", name, kib, err)
	}
}

func TestOptions(t *testing.T) {
	t.Setenv("BENCH_PEERS", "runc-new=/opt/runc")
	o, err := parseOptions([]string{"-peer", "crun-new=/opt/crun", "-only", "oci"})
	if err != nil {
		t.Fatal(err)
	}
	if len(o.peers) != 2 || o.peers[0] != (peer{"crun-new", "/opt/crun"}) || o.peers[1] != (peer{"runc-new", "/opt/runc"}) {
		t.Errorf("peers %v", o.peers)
	}
	if !o.does("oci") || o.does("memory") || o.out != "" {
		t.Errorf("a part of the benchmark: %+v", o)
	}
	if o, err := parseOptions(nil); err != nil || o.out != "docs/benchmarks" || !o.does("memory") {
		t.Errorf("the whole benchmark: %+v %v", o, err)
	}
	for _, args := range [][]string{{"-peer", "runc"}, {"-peer", "runc=bin/runc"}, {"-only", "all"}} {
		if _, err := parseOptions(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
