package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestStaysSmall: what would double the command's size and start-up time does
// not creep in.
func TestStaysSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, heavy := range []string{
			"net/http", "crypto/tls", "google.golang.org/", "go.opentelemetry.io/", "github.com/containerd/",
			"github.com/distribution/", "github.com/moby/moby/client", "github.com/cpuguy83/",
			"github.com/berth-containers/berth/engine", "github.com/berth-containers/berth/keeper",
		} {
			if dep == heavy || strings.HasPrefix(dep, heavy+"/") || strings.HasSuffix(heavy, "/") && strings.HasPrefix(dep, heavy) {
				t.Errorf("berth imports %s", dep)
			}
		}
	}
}
