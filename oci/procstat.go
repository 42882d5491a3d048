package oci

import (
	"bytes"
	"fmt"
	"strconv"
)

// procStat reads from /proc/PID/stat (proc_pid_stat(5), fields 22, 3 and 20)
// when a process was started, in clock ticks since boot, and whether it has
// ended and waits to be reaped. A process whose first thread alone has ended shows
// as a zombie too, but has further threads.
func procStat(pid int) (started uint64, ended bool, err error) {
	b, err := ReadSmallFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false, err
	}
	// The command's name, in parentheses, may hold anything.
	end := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[end+1:])
	if end < 0 || len(fields) < 20 {
		return 0, false, fmt.Errorf("/proc/%d/stat: unexpected form", pid)
	}
	started, err = strconv.ParseUint(string(fields[19]), 10, 64)
	state, threads := fields[0][0], string(fields[17])
	alone := threads == "0" || threads == "1"
	return started, alone && (state == 'Z' || state == 'X'), err
}
