// Package imports holds the design's import rule: packages import downwards
// only, siblings do not import each other, and what becomes the runtime's small
// binary takes nothing of containerd, gRPC or HTTP.
package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/berth-containers/berth"

// layers are the rooms of the house, from the ground up. A room is a directory
// with all that is below it; one that ends in /* makes a room of each directory in it.
var layers = [][]string{
	{"errdefs", "fault", "audit"},
	{"kernel/*"},
	{"oci"},
	{"image", "network", "volume", "qos", "keeper"},
	{"engine"},
	{"api/*", "openstack/*"},
	{"cmd/*"},
}

// outside may import from every room and is imported by none.
var outside = []string{"test", "bench", "docs", "demo"}

// small lists the rooms that end up in berth-oci.
var small = []string{"errdefs", "fault", "kernel/*", "oci", "keeper", "cmd/berth-oci"}

// tooBig are the imports, by path prefix, that no package of a small room has,
// not even through others.
var tooBig = []string{"net/http", "google.golang.org/grpc", "github.com/containerd/"}

// thin lists for a room all the other rooms it may import: the command line
// speaks to the engine through its API only.
var thin = map[string][]string{"cmd/berth": {"errdefs"}}

// listed is what "go list" says of a package, as far as it matters here.
type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// modulePackages returns the module's packages.
func modulePackages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var found []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		if dir(p.ImportPath) != "" {
			found = append(found, p)
		}
	}
}

// dir is a package's directory in the module; "" when it is of another module.
// The module's root has no package that counts.
func dir(importPath string) string {
	d, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	return d
}

// roomOf returns the room a directory is in and its layer; -1 is outside.
// ok is false when the design does not know the directory.
func roomOf(dir string) (room string, layer int, ok bool) {
	for i, rooms := range layers {
		for _, r := range rooms {
			if name, ok := within(dir, r); ok {
				return name, i, true
			}
		}
	}
	for _, r := range outside {
		if name, ok := within(dir, r); ok {
			return name, -1, true
		}
	}
	return "", 0, false
}

// within says whether dir is in the room that pattern describes, and its name.
func within(dir, pattern string) (room string, ok bool) {
	parent, each := strings.CutSuffix(pattern, "/*")
	if !each {
		return pattern, dir == pattern || strings.HasPrefix(dir, pattern+"/")
	}
	rest, ok := strings.CutPrefix(dir, parent+"/")
	if !ok {
		return "", false
	}
	name, _, _ := strings.Cut(rest, "/")
	return parent + "/" + name, true
}

// violation says what is wrong with from importing to, "" when nothing is.
func violation(from, to string) string {
	fromRoom, fromLayer, known := roomOf(from)
	if !known {
		return "the design has no place for " + from
	}
	toRoom, toLayer, known := roomOf(to)
	allowed, restricted := thin[fromRoom]
	switch {
	case !known:
		return "the design has no place for " + to
	case fromRoom == toRoom || fromLayer < 0:
		return ""
	case toLayer < 0:
		return "nothing of the product imports " + toRoom
	case restricted && !slices.Contains(allowed, toRoom):
		return fromRoom + " imports of the module only " + strings.Join(allowed, ", ")
	case fromLayer == toLayer:
		return "siblings do not import each other"
	case fromLayer < toLayer:
		return "imports point downwards"
	}
	return ""
}

func TestPackagesImportDownwards(t *testing.T) {
	packages := modulePackages(t)
	if len(packages) < 20 {
		t.Fatalf("go list knows only %d packages of the module", len(packages))
	}
	for _, p := range packages {
		for _, imported := range p.Imports {
			if to := dir(imported); to != "" {
				if wrong := violation(dir(p.ImportPath), to); wrong != "" {
					t.Errorf("%s imports %s: %s", dir(p.ImportPath), to, wrong)
				}
			}
		}
	}
}

func TestSmallRoomsImportNothingBig(t *testing.T) {
	checked := map[string]bool{}
	for _, p := range modulePackages(t) {
		for _, pattern := range small {
			if _, ok := within(dir(p.ImportPath), pattern); !ok {
				continue
			}
			checked[pattern] = true
			for _, dep := range p.Deps {
				if i := slices.IndexFunc(tooBig, func(big string) bool { return strings.HasPrefix(dep, big) }); i >= 0 {
					t.Errorf("%s depends on %s", dir(p.ImportPath), dep)
				}
			}
		}
	}
	for _, pattern := range small {
		if !checked[pattern] {
			t.Errorf("no package in %s: is the list out of date?", pattern)
		}
	}
}

func TestViolation(t *testing.T) {
	for _, c := range []struct {
		from, to string
		wrong    bool
	}{
		{"engine", "image", false},
		{"engine", "oci", false},
		{"cmd/berthd", "api/docker", false},
		{"cmd/berth/internal/cli", "cmd/berth/internal/client", false},
		{"kernel/seccomp", "kernel/seccomp/internal/gen", false},
		{"test/oci", "oci", false},
		{"oci", "engine", true},
		{"image", "network", true},
		{"image", "keeper", true},
		{"kernel/caps", "kernel/mount", true},
		{"api/docker", "api/cri", true},
		{"errdefs", "kernel/caps", true},
		{"cmd/berth", "engine", true},
		{"cmd/berth-oci", "cmd/berth", true},
		{"engine", "test/oci", true},
		{"engine", "util", true},
		{"util", "engine", true},
	} {
		if got := violation(c.from, c.to); (got != "") != c.wrong {
			t.Errorf("%s imports %s: got %q", c.from, c.to, got)
		}
	}
}
