package engine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
)

// execKeep is how many ended execs of one container can still be inspected;
// the oldest are forgotten first. Health probes would else pile up.
const execKeep = 64

// The states of an exec. created → starting → running → ended; a failed start
// goes from starting to ended.
type execState string

const (
	execCreated  execState = "created"
	execStarting execState = "starting"
	execRunning  execState = "running"
	execEnded    execState = "ended"
)

// execution is one exec: what was asked for and what became of it. It is
// guarded by its container's mu, and on disk beside the container's record.
type execution struct {
	ID      string
	Created time.Time
	Request *container.ExecCreateRequest
	Status  execState
	Pid     int `json:",omitempty"`
	// ExitCode is set once ended.
	ExitCode *int      `json:",omitempty"`
	EndedAt  time.Time `json:",omitzero"`

	done chan struct{} // closed when ended
}

const execPrefix = "exec-"

func (c *ctr) execPath(id string) string { return filepath.Join(c.dir, execPrefix+id+".json") }

// saveExec writes an exec's record.
func (c *ctr) saveExec(x *execution) error {
	data, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("encode exec %s: %w", short(x.ID), err)
	}
	if err := writeFileAtomic(c.execPath(x.ID), data, 0o600); err != nil {
		return fmt.Errorf("write exec %s: %w", short(x.ID), err)
	}
	return nil
}

// loadExecs reads the records of a container's execs. One that cannot be read
// is dropped.
func (c *ctr) loadExecs() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasSuffix(name, newSuffix) { // a write that was cut short
			if err := os.Remove(filepath.Join(c.dir, name)); err != nil {
				return err
			}
			continue
		}
		if !strings.HasPrefix(name, execPrefix) || !strings.HasSuffix(name, ".json") {
			continue
		}
		path := filepath.Join(c.dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		x := &execution{done: make(chan struct{})}
		if json.Unmarshal(data, x) != nil || x.Request == nil || c.execPath(x.ID) != path {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		if x.Status == execEnded {
			close(x.done)
		}
		c.execs[x.ID] = x
	}
	return nil
}

// changeExec applies fn to an exec and writes it before others see it.
func (c *ctr) changeExec(x *execution, fn func(x *execution)) error {
	return c.changeExecAndTell(x, fn, func(*record) {})
}

// changeExecAndTell calls tell, when the exec has ended by this change, before
// those who wait for its end go on. tell must not ask the container for anything.
func (c *ctr) changeExecAndTell(x *execution, fn func(x *execution), tell func(rec *record)) error {
	// Not under mu: the disk may be slow, and lists do not wait for it.
	c.execWrites.Lock()
	defer c.execWrites.Unlock()
	next := c.snapshotExec(x)
	fn(&next)
	if err := c.saveExec(&next); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if next.Status == execEnded && x.Status != execEnded {
		tell(c.rec)
		close(x.done)
	}
	*x = next
	return nil
}

// snapshotExec is a copy of an exec as it is now.
func (c *ctr) snapshotExec(x *execution) execution {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *x
}

// execIDs are the execs that are running or can still be started.
func (c *ctr) execIDs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id, x := range c.execs {
		if x.Status != execEnded {
			ids = append(ids, id)
		}
	}
	return ids
}

// trimExecs forgets the oldest ended execs above execKeep and returns their ids.
func (c *ctr) trimExecs() []string {
	dropped := c.dropExecs()
	for _, id := range dropped {
		os.Remove(c.execPath(id))
	}
	return dropped
}

func (c *ctr) dropExecs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var dropped []string
	for {
		var oldest *execution
		ended := 0
		for _, x := range c.execs {
			if x.Status != execEnded {
				continue
			}
			ended++
			if oldest == nil || x.EndedAt.Before(oldest.EndedAt) {
				oldest = x
			}
		}
		if ended <= execKeep {
			return dropped
		}
		delete(c.execs, oldest.ID)
		dropped = append(dropped, oldest.ID)
	}
}
