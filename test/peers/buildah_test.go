//go:build peers

package peers

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/test/typist"
)

// buildah is buildah as root with its store, which has the image.
func buildah(t *testing.T) *engine {
	t.Helper()
	need(t, "buildah")
	p := thePlace()
	e := &engine{
		argv: []string{"buildah", "--root", filepath.Join(p.work, "buildah"), "--runroot", "/run/buildah"},
		env:  []string{"CONTAINERS_CONF=" + containersConf(t, p.work)},
	}
	e.must(t, "pull", "-q", "docker-archive:"+p.archive)
	t.Cleanup(func() {
		e.must(t, "rm", "-a")
		e.must(t, "rmi", "-a", "-f")
	})
	return e
}

func TestBuildah(t *testing.T) {
	e := buildah(t)
	e.must(t, "from", "--name", "workshop", image)
	for _, s := range []scene{
		{name: "output", script: "echo out; echo err >&2", want: "out"},
		{name: "exit code", script: "exit 7", code: 7},
		{name: "no network", options: []string{"--network", "none"}, script: "ls /sys/class/net", want: "lo"},
		{name: "network of the host", options: []string{"--network", "host"}, script: "readlink /proc/self/ns/net", want: ownNamespaces(t, "net")},
		{name: "user", options: []string{"--user", "sailor"}, script: "id -un", want: "sailor"},
		{name: "capabilities", options: []string{"--cap-drop", "all"}, script: "grep CapEff /proc/self/status", want: "CapEff:\t0000000000000000"},
		{name: "bind mount", options: []string{"-v", t.TempDir() + ":/host:ro"},
			script: "touch /host/x 2>/dev/null || echo refused", want: "refused"},
		{name: "environment and directory", options: []string{"--env", "CARGO=tea", "--workingdir", "/tmp"}, script: "echo $CARGO; pwd", want: "tea\n/tmp"},
		{name: "host name", options: []string{"--hostname", "quay"}, script: "hostname", want: "quay"},
		{name: "process namespace", script: "echo $$", want: "1"},
		{name: "what stays", script: "echo cargo >/hold", want: ""},
		{name: "what stayed", script: "cat /hold", want: "cargo"},
	} {
		t.Run(s.name, func(t *testing.T) {
			r := e.try(t, "", e.runIn(s.options, "sh", "-c", s.script)...)
			if r.out != s.want || r.code != s.code {
				t.Errorf("%s\nprints %q, exit code %d\nwant   %q, exit code %d\n%s", s.script, r.out, r.code, s.want, s.code, r.err)
			}
		})
	}
	t.Run("terminal", func(t *testing.T) {
		p := typist.Sit(t, e.command(t.Context(), e.runIn([]string{"--tty"}, "sh")...))
		p.Sees("/ #")
		p.Types("tty\r")
		p.Sees("/dev/pts/0")
		p.Types("exit 6\r")
		if code := p.Exits(); code != 6 {
			t.Errorf("exit code %d, want 6", code)
		}
	})
	t.Run("nothing there", func(t *testing.T) {
		r := e.try(t, "", e.runIn(nil, "nosuch")...)
		if r.code == 0 || !strings.Contains(r.err, "no such file or directory") {
			t.Errorf("exit code %d: %s", r.code, r.err)
		}
	})
}

// runIn is the command line that runs args in the working container.
func (e *engine) runIn(options []string, args ...string) []string {
	argv := []string{"run", "--runtime", thePlace().runtime, "--isolation", "oci"}
	return append(append(append(argv, options...), "workshop", "--"), args...)
}

// TestBuildahBuild builds from a recipe, and runs a command in what came of it.
func TestBuildahBuild(t *testing.T) {
	e := buildah(t)
	for _, limits := range [][]string{nil, {"--memory", "64m", "--cpu-shares", "100", "--ulimit", "nofile=100:200"}} {
		argv := append([]string{"bud", "--runtime", thePlace().runtime, "--isolation", "oci", "--no-cache", "-t", "localhost/built"}, limits...)
		e.must(t, append(argv, buildContext(t))...)
		e.must(t, "from", "--name", "workshop", "localhost/built")
		checkBuilt(t, func(args ...string) string { return e.must(t, e.runIn([]string{"--user", "root"}, args...)...) })
		e.must(t, "rm", "workshop")
	}
}
