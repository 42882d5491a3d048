package engine

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Observe is told of an operation on an object (a name or an id) as it begins,
// and by the function it returns of its end. The context it returns is the one
// in which the operation goes on. It must not block.
type Observe func(ctx context.Context, operation, object string) (_ context.Context, end func(error))

// The operations that are observed. A start is observed however it came about,
// by a restart policy too; the keeper's part of it is one of its own.
const (
	OpCreate      = "create"
	OpStart       = "start"
	OpKeeperStart = "keeper_start"
	OpStop        = "stop"
	OpRemove      = "remove"
	OpExec        = "exec"
	OpPull        = "pull"
	OpLoad        = "load"
)

// Operations lists them.
func Operations() []string {
	return []string{OpCreate, OpStart, OpKeeperStart, OpStop, OpRemove, OpExec, OpPull, OpLoad}
}

func (e *Engine) observe(ctx context.Context, operation, object string) (context.Context, func(error)) {
	if e.cfg.Observe == nil {
		return ctx, func(error) {}
	}
	return e.cfg.Observe(ctx, operation, object)
}

// Overview is what all containers use at this moment.
func (e *Engine) Overview() (*Overview, error) { return e.overview() }

// ImageCount is the number of images.
func (e *Engine) ImageCount(ctx context.Context) (int, error) {
	list, err := e.images.List(ctx)
	return len(list), err
}

// KeeperUse tells whether the keeper is connected, and how many bytes of
// memory are its own.
func (e *Engine) KeeperUse() (connected bool, memory uint64) {
	c, err := e.keeper.connected()
	if c == nil || err != nil {
		return false, 0
	}
	return true, residentMemory(c.Info().Pid)
}

// residentMemory reads proc_pid_statm(5); 0 when the process has ended.
func residentMemory(pid int) uint64 {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(fields[1], 10, 64) // the kernel writes numbers
	return pages * uint64(os.Getpagesize())
}
