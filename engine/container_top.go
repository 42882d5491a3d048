package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// clockTicks is USER_HZ, in which /proc counts time; it is 100 on every
// architecture Go runs on.
const clockTicks = 100

// topColumn is a column and ps' names for it.
type topColumn struct {
	names []string // of ps -o
	title string
	value func(p *procInfo) string
}

// topColumns are the columns there are.
var topColumns = []topColumn{
	{[]string{"uid", "user", "euser", "euid"}, "UID", func(p *procInfo) string { return p.user }},
	{[]string{"pid"}, "PID", func(p *procInfo) string { return strconv.Itoa(p.pid) }},
	{[]string{"ppid"}, "PPID", func(p *procInfo) string { return strconv.Itoa(p.ppid) }},
	{[]string{"c", "pcpu", "%cpu"}, "C", func(p *procInfo) string { return strconv.Itoa(p.cpuShare()) }},
	{[]string{"stime", "start", "start_time"}, "STIME", func(p *procInfo) string { return p.startText() }},
	{[]string{"tty", "tt", "tname"}, "TTY", func(p *procInfo) string { return p.tty }},
	{[]string{"time", "cputime"}, "TIME", func(p *procInfo) string { return p.timeText() }},
	{[]string{"cmd", "args", "command"}, "CMD", func(p *procInfo) string { return p.cmd }},
	{[]string{"comm", "ucmd"}, "COMMAND", func(p *procInfo) string { return p.comm }},
	{[]string{"rss", "rssize"}, "RSS", func(p *procInfo) string { return strconv.FormatInt(p.rss/1024, 10) }},
	{[]string{"vsz", "vsize"}, "VSZ", func(p *procInfo) string { return strconv.FormatInt(p.vsz/1024, 10) }},
	{[]string{"stat", "s", "state"}, "S", func(p *procInfo) string { return p.state }},
}

// defaultTop is ps -ef.
var defaultTop = []string{"uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd"}

// ContainerTop lists the processes of a running container, read from /proc.
// psArgs are ps' arguments, of which -ef (the default, -e and aux alike) and
// -o with a list of columns are known.
func (e *Engine) ContainerTop(_ context.Context, ref, psArgs string) (*container.TopResponse, error) {
	c, err := e.containers.get(ref)
	if err != nil {
		return nil, err
	}
	columns, err := parsePsArgs(psArgs)
	if err != nil {
		return nil, err
	}
	rec := c.snapshot()
	if rec.State.Status != stateRunning && rec.State.Status != statePaused {
		return nil, errNotRunning(c.id)
	}
	pids, err := e.containerPids(rec)
	if err != nil {
		return nil, err
	}
	resp := &container.TopResponse{Processes: [][]string{}}
	for _, i := range columns {
		resp.Titles = append(resp.Titles, topColumns[i].title)
	}
	now := time.Now()
	for _, pid := range pids {
		p, err := readProc(pid, now)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return nil, err
		}
		row := make([]string, len(columns))
		for n, i := range columns {
			row[n] = topColumns[i].value(p)
		}
		resp.Processes = append(resp.Processes, row)
	}
	e.emitContainer(rec, events.ActionTop, nil)
	return resp, nil
}

func (e *Engine) containerPids(rec *record) ([]int, error) {
	g, err := e.cgroup(rec)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	pids, err := g.Procs()
	slices.Sort(pids)
	return pids, err
}

// parsePsArgs returns the wanted columns as indexes of topColumns.
func parsePsArgs(args string) ([]int, error) {
	names := defaultTop
	fields := strings.Fields(args)
	for i := 0; i < len(fields); i++ {
		switch f := fields[i]; {
		case slices.Contains([]string{"-e", "-f", "-ef", "-A", "aux", "-aux", "ax", "ef"}, f):
		case (f == "-o" || f == "-eo" || f == "o") && i+1 < len(fields):
			i++
			names = strings.Split(fields[i], ",")
		case strings.HasPrefix(f, "-o") && len(f) > 2:
			names = strings.Split(f[2:], ",")
		default:
			return nil, errUnsupported(fmt.Sprintf("ps argument %q (known are -ef and -o with a list of columns)", f))
		}
	}
	var columns []int
	for _, name := range names {
		i := slices.IndexFunc(topColumns, func(c topColumn) bool {
			return slices.Contains(c.names, strings.ToLower(name))
		})
		if i < 0 {
			return nil, errUnsupported(fmt.Sprintf("ps column %q", name))
		}
		columns = append(columns, i)
	}
	return columns, nil
}

// procInfo is what /proc says about one process.
type procInfo struct {
	pid, ppid         int
	user, tty, state  string
	comm, cmd         string
	cpu               time.Duration // user and system
	started, observed time.Time
	rss, vsz          int64 // bytes
}

// readProc reads a process's line, proc_pid_stat(5).
func readProc(pid int, now time.Time) (*procInfo, error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return nil, err
	}
	p := &procInfo{pid: pid, observed: now}
	if err := p.parseStat(string(stat)); err != nil {
		return nil, err
	}
	cmdline, err := os.ReadFile(dir + "cmdline")
	if err != nil {
		return nil, err
	}
	if p.cmd = string(bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte{' '})); p.cmd == "" {
		p.cmd = "[" + p.comm + "]"
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	// The host's names mean nothing for a container's users; root does.
	if p.user = strconv.Itoa(int(st.Uid)); st.Uid == 0 {
		p.user = "root"
	}
	return p, nil
}

// parseStat reads the fields that follow the name, which is in parentheses and
// may itself hold any character.
func (p *procInfo) parseStat(stat string) error {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return fmt.Errorf("stat of process %d: %q", p.pid, stat)
	}
	p.comm = stat[open+1 : end]
	f := strings.Fields(stat[end+1:])
	if len(f) < 22 {
		return fmt.Errorf("stat of process %d: %q", p.pid, stat)
	}
	num := func(i int) int64 { v, _ := strconv.ParseInt(f[i], 10, 64); return v } // the kernel writes numbers
	p.state, p.ppid = f[0], int(num(1))
	p.tty = ttyName(int(num(4)))
	p.cpu = time.Duration(num(11)+num(12)) * time.Second / clockTicks
	p.started = p.observed.Add(-(uptime() - time.Duration(num(19))*time.Second/clockTicks))
	p.vsz, p.rss = num(20), num(21)*int64(os.Getpagesize())
	return nil
}

// uptime is how long the host has been up.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// ttyName writes a terminal's device number as ps does.
func ttyName(dev int) string {
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	switch {
	case dev == 0:
		return "?"
	case major >= 136 && major <= 143:
		return "pts/" + strconv.Itoa((major-136)<<8|minor)
	case major == 4 && minor < 64:
		return "tty" + strconv.Itoa(minor)
	case major == 4:
		return "ttyS" + strconv.Itoa(minor-64)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

// cpuShare is the share of its life the process was on a CPU, in percent.
func (p *procInfo) cpuShare() int {
	life := p.observed.Sub(p.started)
	if life <= 0 {
		return 0
	}
	return int(p.cpu * 100 / life)
}

// startText is the time of day for today's processes, else the day.
func (p *procInfo) startText() string {
	if p.observed.Sub(p.started) < 24*time.Hour && p.observed.YearDay() == p.started.YearDay() {
		return p.started.Format("15:04")
	}
	return p.started.Format("Jan02")
}

func (p *procInfo) timeText() string {
	s := int(p.cpu / time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}
