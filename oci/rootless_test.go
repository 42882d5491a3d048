package oci

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/berth-containers/berth/errdefs"
)

// TestProcessThatDoesNotEnd: the first process of a pid namespace ends when all
// others have been reaped. Here one is not: it is the test's own child.
func TestProcessThatDoesNotEnd(t *testing.T) {
	s := startSleeper(t, nil)
	child, err := s.r.Exec(&ExecRequest{InitPid: s.init.Pid, InitPidfd: s.init.Pidfd, Spec: s.req.Spec, Process: s.process("sleep", "1000"), Cgroup: s.req.Cgroup})
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	started, _, err := procStat(s.init.Pid)
	if err != nil {
		t.Fatal(err)
	}
	c := &Container{record: record{ID: "unending", Pid: s.init.Pid, Started: started}}
	if err := c.endWithout(time.Millisecond); !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "has not ended") {
		t.Errorf("got %v", err)
	}
	if _, err := child.Wait(); err != nil {
		t.Error(err)
	}
	if err := c.endWithout(endTime); err != nil {
		t.Errorf("when it has been reaped: %v", err)
	}
}
