package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/berth-containers/berth/errdefs"
)

// logger writes what the callers of an OCI runtime read: containerd and Podman
// take the last error of a JSON log for their own message.
type logger struct {
	path   string
	format string
	debug  bool
}

func (l *logger) write(level, msg string) {
	out := os.Stderr
	if l.path != "" {
		f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			fmt.Fprintf(os.Stderr, "berth-oci: log: %v\n", err)
		} else {
			defer f.Close()
			out = f
		}
	}
	now := time.Now().Format(time.RFC3339Nano)
	if l.format == "json" {
		b, _ := json.Marshal(map[string]string{"level": level, "msg": msg, "time": now})
		fmt.Fprintf(out, "%s\n", b)
		return
	}
	if out == os.Stderr {
		fmt.Fprintf(out, "berth-oci: %s\n", msg)
		return
	}
	fmt.Fprintf(out, "time=%q level=%s msg=%q\n", now, level, msg)
}

// warnings logs what this host could not give; only with --debug, as every
// container of a host would repeat them.
func (l *logger) warnings(list []string) {
	if !l.debug {
		return
	}
	for _, w := range list {
		l.write("warning", w)
	}
}

// fail reports an error and is the exit status for it.
func (a *app) fail(err error) int {
	a.log.write("error", err.Error())
	hint := errdefs.Hint(err)
	if a.log.path != "" { // people see the error too
		fmt.Fprintf(os.Stderr, "berth-oci: %v\n", err)
	}
	if hint != "" {
		fmt.Fprintf(os.Stderr, "hint: %s\n", hint)
	}
	return exitCode(err)
}
