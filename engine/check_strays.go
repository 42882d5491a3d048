package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
)

// strays looks for what belongs to no container.
func (a *auditor) strays(ctx context.Context) error {
	return errors.Join(a.strayProcesses(ctx), a.strayCgroups(), a.strayDirs(), a.strayShm())
}

// strayProcesses looks for what the keeper has and the engine does not know.
func (a *auditor) strayProcesses(ctx context.Context) error {
	known, err := a.e.keeper.list(ctx)
	if err != nil {
		return err
	}
	for _, st := range known {
		if a.e.known(st.ContainerID) || st.Exited {
			continue
		}
		a.found.Add(fmt.Sprintf("process %d", st.Pid), fmt.Sprintf("the keeper runs it for container %s, which does not exist", short(st.ContainerID)),
			"kill it", func(ctx context.Context) (string, error) {
				return "killed it", a.e.keeper.signal(ctx, st.ContainerID, st.ExecID, syscall.SIGKILL)
			})
	}
	return nil
}

// idRule is what a container's id looks like: what has such a name below our
// cgroup was made by this engine.
var idRule = regexp.MustCompile(`^[0-9a-f]{64}$`)

// strayCgroups looks below the cgroup that containers live in.
func (a *auditor) strayCgroups() error {
	parent := "/" + strings.TrimLeft(a.e.cfg.CgroupParent, "/")
	g, err := cgroup.Load(parent)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer g.Close()
	names, err := g.Children()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !idRule.MatchString(name) || a.e.known(name) {
			continue
		}
		path := parent + "/" + name
		a.found.Add("cgroup "+path, "it belongs to no container", "kill what is in it and remove it", func(context.Context) (string, error) {
			if a.e.known(name) {
				return "left it alone: it has an owner now", nil
			}
			return "removed it", endCgroup(path)
		})
	}
	return nil
}

// strayDirs looks for directories of containers that are not known.
func (a *auditor) strayDirs() error {
	entries, err := os.ReadDir(a.e.containersDir())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name, dir := entry.Name(), filepath.Join(a.e.containersDir(), entry.Name())
		if a.e.known(name) {
			continue
		}
		_, err := loadRecord(dir)
		switch {
		case strings.HasSuffix(name, doomedSuffix), idRule.MatchString(name) && errors.Is(err, os.ErrNotExist):
			a.found.Add("directory "+dir, "it is what is left of a container that was removed", "remove it", func(ctx context.Context) (string, error) {
				if a.e.known(name) {
					return "left it alone: it has an owner now", nil
				}
				return "removed it", a.e.removeDoomed(ctx, dir)
			})
		case strings.HasSuffix(name, damagedSuffix):
			a.found.Add("directory "+dir, "the record of the container in it cannot be read; its writable layer was kept",
				"look whether its files are still wanted, and delete the directory", nil)
		default:
			a.found.Add("directory "+dir, "it is no container that the engine knows", "restart the engine to take it over, or delete it", nil)
		}
	}
	return nil
}

// strayShm looks for shared memory of containers that are gone.
func (a *auditor) strayShm() error {
	entries, err := os.ReadDir(filepath.Dir(a.e.shmDir("x")))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		id := entry.Name()
		if a.e.known(id) {
			continue
		}
		a.found.Add("mount "+a.e.shmDir(id), "it is the shared memory of a container that is gone", "unmount it",
			func(context.Context) (string, error) { return "unmounted it", a.e.removeShm(id) })
	}
	return nil
}
