package cli

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestRequests compares what commands ask the engine for with what docker's
// ask for, as recorded in testdata/requests.txt: a command line after $, then
// its requests. An inspection docker makes only to learn of a terminal is left
// out: berth learns that from the answer itself.
func TestRequests(t *testing.T) {
	const file = "testdata/requests.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	e := newFakeEngine(t, nil)
	var out strings.Builder
	for _, block := range strings.Split("\n"+strings.TrimSpace(string(text)), "\n$ ")[1:] {
		line, want, _ := strings.Cut(block, "\n")
		args := strings.Fields(line)
		if *record {
			want = recordRequests(t, e, args)
		}
		out.WriteString("$ " + line + "\n" + want + "\n")
		if t.Failed() && *record {
			continue
		}
		_, _, stderr := e.run("", args...)
		got := strings.Join(e.took(), "\n")
		if strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("berth %s\nasked %s\nwant  %s\n%s", line, got, want, stderr)
		}
	}
	if *record {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func recordRequests(t *testing.T, e *fakeEngine, args []string) string {
	cmd := exec.Command("docker", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "DOCKER_HOST=unix://" + e.socket, "TZ=UTC"}
	out, _ := cmd.CombinedOutput()
	asked := strings.Join(e.took(), "\n")
	if asked == "" {
		t.Errorf("docker %q asked nothing: %s", args, out)
	}
	// Docker normalises names before it sends them, which the engine does as
	// well, and sends empty values.
	return strings.NewReplacer("docker.io%2Flibrary%2F", "", "docker.io%2F", "",
		"author=&", "", "comment=&", "", "&repo=&tag=", "").Replace(asked)
}
