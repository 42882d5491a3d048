package main

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestExecLabels(t *testing.T) {
	own := &specs.Process{ApparmorProfile: "own", SelinuxLabel: "o:w:n"}
	for _, c := range []struct{ args, want []string }{
		{nil, []string{"own", "o:w:n"}},
		{[]string{"--apparmor", "p"}, []string{"p", "o:w:n"}},
		{[]string{"--process-label", "l:l:l"}, []string{"own", "l:l:l"}},
	} {
		var e execFlags
		fs := newFlags("exec", "")
		e.define(fs)
		if err := fs.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		pr, err := e.describe(own, []string{"true"})
		if err != nil || pr.ApparmorProfile != c.want[0] || pr.SelinuxLabel != c.want[1] {
			t.Errorf("%q: %v, %+v", c.args, err, pr)
		}
	}
	if own.ApparmorProfile != "own" || own.SelinuxLabel != "o:w:n" {
		t.Errorf("the container's own are %+v now", own)
	}
}
