package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// TestCompressLog compresses a container's rotated files while it writes, and
// reads every line once, in order.
func TestCompressLog(t *testing.T) {
	te := newTestEngine(t)
	const script = `i=0; while [ $i -lt 400 ]; do echo line $i of a log that is rotated; i=$((i+1)); done; read x < /go`
	req := logged("local", map[string]string{"max-size": "8k", "max-file": "20"}, "mkfifo /go; "+script)
	id := te.run("", req)
	c := te.named(id)
	var followed logLines
	end := make(chan error, 1)
	go func() {
		end <- te.ContainerLogs(t.Context(), id, LogsOptions{Stdout: true, Follow: true, Tail: -1}, &followed)
	}()
	small := func() int {
		names, err := filepath.Glob(c.logPath() + ".*" + gzSuffix)
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	for small() < 3 {
		if err := c.compressLog(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	te.exec(id, "sh", "-c", "echo x > /go")
	te.wait(id, container.WaitConditionNotRunning)
	if err := c.compressLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-end; err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 400 {
		fmt.Fprintf(&want, "line %d of a log that is rotated\n", i)
	}
	if followed.String() != want.String() {
		t.Errorf("followed %d bytes, want %d", followed.Len(), want.Len())
	}
	if out, _ := te.logs(id); out != want.String() {
		t.Errorf("read %d bytes, want %d", len(out), want.Len())
	}
	var tail logLines
	if err := te.ContainerLogs(t.Context(), id, LogsOptions{Stdout: true, Tail: 390}, &tail); err != nil {
		t.Fatal(err)
	}
	if got := tail.String(); got != want.String()[want.Len()-len(got):] || strings.Count(got, "\n") != 390 {
		t.Errorf("the last 390 lines are %d", strings.Count(got, "\n"))
	}
	if names, _ := filepath.Glob(c.logPath() + "*.new"); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
	if _, err := os.Stat(c.logPath() + ".1"); err == nil {
		t.Error("a rotated file is not compressed")
	}
}
