package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

// limitFlag is a flag of update: where its value goes.
type limitFlag struct {
	name, usage string
	set         func(value string) error
}

// updateFlags are the limits that update takes one by one, into res.
func updateFlags(res *specs.LinuxResources) []limitFlag {
	res.Memory, res.CPU, res.BlockIO, res.Pids = &specs.LinuxMemory{}, &specs.LinuxCPU{}, &specs.LinuxBlockIO{}, &specs.LinuxPids{}
	m, c := res.Memory, res.CPU
	return []limitFlag{
		{"memory", "memory limit in `bytes`, or with a unit: 512m; -1: none", size(&m.Limit)},
		{"memory-reservation", "memory reservation in `bytes`", size(&m.Reservation)},
		{"memory-swap", "limit of memory and swap together in `bytes`; -1: none", size(&m.Swap)},
		//lint:ignore SA1019 the flag is accepted, as by runc
		{"kernel-memory", "accepted and without effect (`bytes`)", size(&m.Kernel)},
		{"kernel-memory-tcp", "limit of TCP buffers in `bytes`, cgroup v1 only", size(&m.KernelTCP)},
		{"cpu-share", "relative `weight`, 2 to 262144", unsigned(&c.Shares)},
		{"cpu-quota", "CPU time in `µs` for each period; -1: no limit", signed(&c.Quota)},
		{"cpu-period", "length of the period in `µs`", unsigned(&c.Period)},
		{"cpu-burst", "unused CPU time in `µs` that may be saved for later", unsigned(&c.Burst)},
		{"cpu-rt-runtime", "real-time CPU time in `µs` for each period, cgroup v1 only", signed(&c.RealtimeRuntime)},
		{"cpu-rt-period", "length of the real-time period in `µs`, cgroup v1 only", unsigned(&c.RealtimePeriod)},
		{"cpu-idle", "`1`: run only when nobody else wants to; 0: as usual", signed(&c.Idle)},
		{"cpuset-cpus", "CPUs to use: `0-3,7`", text(&c.Cpus)},
		{"cpuset-mems", "memory nodes to use: `0-1`", text(&c.Mems)},
		{"pids-limit", "`number` of tasks; -1: no limit", signed(&res.Pids.Limit)},
		{"blkio-weight", "I/O `weight`, 10 to 1000", weight(&res.BlockIO.Weight)},
	}
}

func runUpdate(a *app, fs *flag.FlagSet, args []string) (int, error) {
	var res specs.LinuxResources
	given := 0
	for _, f := range updateFlags(&res) {
		fs.Func(f.name, f.usage, func(v string) error {
			given++
			if v == "" { // some engines pass every flag
				return nil
			}
			return f.set(v)
		})
	}
	file := stringFlag(fs, "resources", "r", "", "`file` with linux.resources as JSON, - for standard input; the other flags are ignored then")
	l3 := fs.String("l3-cache-schema", "", "Intel RDT: `schema` of the L3 cache")
	bandwidth := fs.String("mem-bw-schema", "", "Intel RDT: `schema` of the memory bandwidth")
	id, code, err := parseID(fs, args, 1)
	if err != nil {
		return code, err
	}
	if *file != "" {
		res = specs.LinuxResources{}
		if err := readResources(*file, &res); err != nil {
			return 1, err
		}
	} else if given == 0 && *l3 == "" && *bandwidth == "" {
		return 1, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("update: nothing to change"))
	}
	c, err := a.store().Open(id)
	if err != nil {
		return 1, err
	}
	defer c.Close()
	if *l3 != "" || *bandwidth != "" {
		if given > 0 {
			return 1, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("update: --l3-cache-schema, --mem-bw-schema: not together with other limits"))
		}
		return 0, c.UpdateResctrl(*l3, *bandwidth)
	}
	warnings, err := c.Update(&res)
	a.log.warnings(warnings)
	return 0, err
}

func readResources(name string, res *specs.LinuxResources) error {
	var b []byte
	var err error
	if name == "-" {
		b, err = io.ReadAll(os.Stdin)
	} else {
		b, err = oci.ReadSmallFile(name)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, res); err != nil {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("--resources %s: %w", name, err))
	}
	return nil
}

func text(p *string) func(string) error {
	return func(v string) error { *p = v; return nil }
}

func unsigned(p **uint64) func(string) error {
	return func(v string) error {
		n, err := strconv.ParseUint(v, 10, 64)
		*p = &n
		return err
	}
}

func signed(p **int64) func(string) error {
	return func(v string) error {
		n, err := strconv.ParseInt(v, 10, 64)
		*p = &n
		return err
	}
}

func weight(p **uint16) func(string) error {
	return func(v string) error {
		n, err := strconv.ParseUint(v, 10, 16)
		short := uint16(n)
		*p = &short
		return err
	}
}

func size(p **int64) func(string) error {
	return func(v string) error {
		n, err := parseSize(v)
		*p = &n
		return err
	}
}

// parseSize reads a number of bytes as Docker and runc take it: -1, 1048576,
// 512m, 1.5GiB. Units are powers of 1024.
func parseSize(s string) (int64, error) {
	bad := fmt.Errorf("%q: a number of bytes, or with a unit: 512m, 1.5g", s)
	if s == "-1" {
		return -1, nil
	}
	digits := strings.TrimRight(strings.ToLower(s), "bikmgtp ")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || n < 0 || math.IsNaN(n) {
		return 0, bad
	}
	unit := strings.TrimSpace(strings.ToLower(s)[len(digits):])
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	power := strings.Index("kmgtp", unit)
	switch {
	case unit == "":
		power = -1
	case len(unit) != 1 || power < 0:
		return 0, bad
	}
	for range power + 1 {
		n *= 1024
	}
	if n >= math.MaxInt64 {
		return 0, bad
	}
	return int64(n), nil
}
