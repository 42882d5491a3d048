package keeper

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// pss is what a process costs: its memory, with a share of what it shares, in
// KiB.
func pss(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	must(t, err)
	for line := range bytes.Lines(data) {
		if fields := bytes.Fields(line); len(fields) > 1 && string(fields[0]) == "Pss:" {
			n, err := strconv.Atoi(string(fields[1]))
			must(t, err)
			return n
		}
	}
	t.Fatal("no Pss in smaps_rollup")
	return 0
}

// An idle container costs the keeper little memory.
func TestMemoryOfIdleContainers(t *testing.T) {
	const n, limit = 50, 40 // KiB per container
	if raceDetector {
		t.Skip("the race detector multiplies memory")
	}
	h := newContainerHarness(t)
	pid := h.Info().Pid
	h.start(h.container("first", "exec sleep 1000"))
	h.until("memory is given back", func() bool { return pss(t, pid) < 12_000 })
	before := pss(t, pid)
	for i := range n {
		h.start(h.container(fmt.Sprint("c", i), "exec sleep 1000"))
	}
	// It is given back some time after the last start.
	h.until("memory is given back", func() bool { return pss(t, pid)-before < n*limit })
	t.Logf("keeper: %d KiB with one container, %d with %d", before, pss(t, pid), n+1)
}
