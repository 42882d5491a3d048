package engine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// treeRounds bounds how often killTree looks for what was started while it
// killed.
const treeRounds = 16

// killTree kills a process of a container with all that it has started: what
// descends from it, and what is in the session it leads. A daemon that has left
// both is the container's own.
func (e *Engine) killTree(rec *record, root int) error {
	g, err := e.cgroup(rec)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil // the container has ended
	}
	if err != nil {
		return err
	}
	defer g.Close()
	for range treeRounds {
		pids, err := g.Procs()
		if err != nil {
			return err
		}
		alive := false
		for pid, st := range treeOf(root, pids) {
			killed, err := killMember(pid, st.started)
			if err != nil {
				return fmt.Errorf("end process %d of container %s: %w", pid, short(rec.ID), err)
			}
			alive = alive || killed
		}
		if !alive {
			return nil
		}
	}
	return nil
}

// treeOf picks the processes that descend from root or are in its session.
func treeOf(root int, pids []int) map[int]procStat {
	stats := map[int]procStat{}
	for _, pid := range pids {
		if st, err := readProcStat(pid); err == nil {
			stats[pid] = st
		}
	}
	tree := map[int]procStat{}
	for pid, st := range stats {
		in := pid == root || st.session == root
		for up := st.parent; !in && up != 0; up = stats[up].parent {
			in = up == root
		}
		if in {
			tree[pid] = st
		}
	}
	return tree
}

// killMember kills a process of the tree, unless its number has become another
// process's meanwhile: it was started then. (Its parent may have been killed
// just now, and it is init's child.) It says whether the process was alive.
func killMember(pid int, started uint64) (bool, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	// What the descriptor holds is what is read here, or has ended and takes no
	// signal any more.
	if st, err := readProcStat(pid); err != nil || st.state == 'Z' || st.started != started {
		return false, nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return false, os.NewSyscallError("pidfd_send_signal", err)
	}
	return true, nil
}

// procStat is a part of /proc/PID/stat, proc(5).
type procStat struct {
	state           byte
	parent, session int
	started         uint64 // clock ticks since the host was booted
}

func readProcStat(pid int) (procStat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	// The name, in parentheses, may contain anything.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 20 {
		return procStat{}, fmt.Errorf("read /proc/%d/stat: too short", pid)
	}
	st := procStat{state: fields[0][0]}
	if st.parent, err = strconv.Atoi(string(fields[1])); err == nil {
		st.session, err = strconv.Atoi(string(fields[3]))
	}
	if err == nil {
		st.started, err = strconv.ParseUint(string(fields[19]), 10, 64)
	}
	return st, err
}
