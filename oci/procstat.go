package oci

import (
	"bytes"
	"fmt"
	"strconv"
)

// procStat reads a process's start time (clock ticks since boot) and state
// letter from /proc/PID/stat (proc_pid_stat(5), fields 22 and 3).
func procStat(pid int) (started uint64, state byte, err error) {
	b, err := ReadSmallFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// The command's name, in parentheses, may hold anything.
	end := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[end+1:])
	if end < 0 || len(fields) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: unexpected form", pid)
	}
	started, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return started, fields[0][0], err
}
