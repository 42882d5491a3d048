package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// listenFDs is the number of sockets a service manager passed to us for the
// container (sd_listen_fds(3)): those meant for another process, from which we
// have inherited the variables, are not ours.
func listenFDs() int {
	pid, err := strconv.Atoi(os.Getenv("LISTEN_PID"))
	if err != nil || pid != os.Getpid() {
		return 0
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// passListenFDs tells the container of n such sockets, with their names if they
// have some.
func passListenFDs(env []string, n int) []string {
	if n == 0 {
		return env
	}
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, "LISTEN_") {
			out = append(out, e)
		}
	}
	out = append(out, fmt.Sprintf("LISTEN_FDS=%d", n), "LISTEN_PID=1")
	if names := os.Getenv("LISTEN_FDNAMES"); names != "" {
		out = append(out, "LISTEN_FDNAMES="+names)
	}
	return out
}
