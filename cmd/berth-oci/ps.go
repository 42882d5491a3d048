package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
)

func runPs(a *app, fs *flag.FlagSet, args []string) (int, error) {
	format := stringFlag(fs, "format", "f", "table", "table: what ps(1) shows, or json: the process ids")
	id, code, err := parseID(fs, args, anyNumber)
	if err != nil {
		return code, err
	}
	if *format != "table" && *format != "json" {
		return 1, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("--format %q: table or json", *format))
	}
	pids, err := a.processes(id)
	if err != nil {
		return 1, err
	}
	if *format == "json" {
		return 0, json.NewEncoder(a.stdout).Encode(pids)
	}
	options := fs.Args()[1:]
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.Command("ps", options...).CombinedOutput()
	if err != nil {
		return 1, fmt.Errorf("ps: %w: %s", err, strings.TrimSpace(string(out)))
	}
	table, err := ownLines(string(out), pids)
	if err != nil {
		return 1, err
	}
	_, err = fmt.Fprint(a.stdout, table)
	return 0, err
}

// processes lists the container's processes by their ids on the host.
func (a *app) processes(id string) ([]int, error) {
	c, err := a.store().Open(id)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	g, err := c.Group()
	if errors.Is(err, errdefs.ErrNotFound) { // it has ended
		return []int{}, nil
	}
	if err != nil {
		return nil, err
	}
	pids, err := g.Procs()
	if pids == nil {
		pids = []int{} // [] in JSON
	}
	return pids, err
}

// ownLines keeps the title of a table of ps(1), and the lines of the processes.
func ownLines(table string, pids []int) (string, error) {
	lines := strings.Split(table, "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return "", errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("ps: its output has no column PID")),
			"choose options of ps that show it")
	}
	kept := lines[0] + "\n"
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return "", fmt.Errorf("ps: no process id in line %q", line)
		}
		if slices.Contains(pids, pid) {
			kept += line + "\n"
		}
	}
	return kept, nil
}
