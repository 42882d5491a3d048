package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// TestJournaldForReal reads with journalctl what the driver has sent, where
// systemd-journald runs. A line of more than 16 KiB comes in pieces.
func TestJournaldForReal(t *testing.T) {
	if _, err := os.Stat(journalSocket); errors.Is(err, os.ErrNotExist) {
		t.Skip("systemd-journald does not run")
	}
	te := newTestEngine(t)
	req := logged("journald", map[string]string{"labels": "app.name", "tag": "{{.Name}}/tag"}, "echo hello; busybox printf '%020000d\\n' 1; echo error >&2; printf end")
	req.Config.Labels = map[string]string{"app.name": "x\ny"}
	id := te.run("ship", req)
	te.wait(id, container.WaitConditionNotRunning)
	entries := journalEntries(t, "CONTAINER_NAME=ship", 5)
	line := strings.Repeat("0", 19999) + "1"
	var pieces, texts string
	for _, e := range entries {
		for k, v := range map[string]string{
			"CONTAINER_ID": short(id), "CONTAINER_ID_FULL": id, "IMAGE_NAME": "busybox", "CONTAINER_TAG": "ship/tag", "SYSLOG_IDENTIFIER": "ship/tag",
			"APP_NAME": "x\ny", "_TRANSPORT": "journal",
		} {
			if e[k] != v {
				t.Errorf("%s: %q, want %q", k, e[k], v)
			}
		}
		text := e["MESSAGE"]
		if strings.HasPrefix(text, "0") {
			pieces += text
			text = "piece"
		}
		texts += text + " " + e["PRIORITY"] + " " + e["CONTAINER_PARTIAL_MESSAGE"] + "\n"
	}
	if pieces != line {
		t.Errorf("the long line comes as %d bytes", len(pieces))
	}
	for _, want := range []string{"hello 6 \n", "piece 6 true\n", "piece 6 \n", "error 3 \n", "end 6 true\n"} {
		if strings.Count(texts, want) != 1 {
			t.Errorf("the journal has no %q among\n%s", want, texts)
		}
	}
}

// journalEntries waits until the journal has so many entries.
func journalEntries(t *testing.T, match string, count int) []map[string]string {
	t.Helper()
	for t.Context().Err() == nil {
		if out, err := exec.Command("journalctl", "--sync").CombinedOutput(); err != nil {
			t.Fatalf("journalctl --sync: %v\n%s", err, out)
		}
		out, err := exec.Command("journalctl", "--all", "--quiet", "-o", "json", match).Output()
		if err != nil {
			t.Fatalf("journalctl: %v", err)
		}
		if bytes.Count(out, []byte{'\n'}) < count {
			continue
		}
		var list []map[string]string
		for _, line := range bytes.Split(bytes.TrimSpace(out), []byte{'\n'}) {
			var fields map[string]any
			if err := json.Unmarshal(line, &fields); err != nil {
				t.Fatalf("%v in %.200s", err, line)
			}
			e := map[string]string{}
			for k, v := range fields {
				e[k], _ = v.(string)
			}
			list = append(list, e)
		}
		return list
	}
	return nil
}
