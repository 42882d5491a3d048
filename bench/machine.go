package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/bench/report"
	"github.com/berth-containers/berth/bench/stage"
)

// describeMachine says where the benchmark runs.
func describeMachine(l stage.Layout) (report.Machine, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return report.Machine{}, os.NewSyscallError("uname", err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return report.Machine{}, os.NewSyscallError("sysinfo", err)
	}
	m := report.Machine{
		CPU: field("/proc/cpuinfo", "model name", ":"), CPUs: runtime.NumCPU(), MemoryMiB: int64(info.Totalram * uint64(info.Unit) >> 20),
		Kernel: unix.ByteSliceToString(uts.Release[:]), System: strings.Trim(field("/etc/os-release", "PRETTY_NAME", "="), `"`),
		Cgroups: "cgroup v1", LoadAtBegin: loadAverage(),
	}
	switch {
	case l.Unified:
		m.Cgroups = "cgroup v2"
	case l.Beside != "":
		m.Cgroups = "cgroup v1 and v2 (hybrid)"
	}
	if m.CPU == "" {
		m.CPU = runtime.GOARCH
	}
	return m, nil
}

// field is the value of the first line "NAME SEPARATOR value" of a file; "" when
// there is none.
func field(file, name, separator string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, separator); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// loadAverage is over 1, 5 and 15 minutes.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(text))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

// describeProgram tells a program's version and size. kind is report.Runtimes,
// report.Engines or "". path "" means that it is not installed.
func describeProgram(ctx context.Context, kind, name, path string) report.Program {
	p := report.Program{Name: name, Kind: kind}
	if path == "" {
		p.Missing = "not installed"
		return p
	}
	info, err := os.Stat(path)
	if err != nil {
		p.Missing = err.Error()
		return p
	}
	p.Bytes = info.Size()
	for _, flag := range []string{"--version", "-v"} {
		if out, err := exec.CommandContext(ctx, path, flag).Output(); err == nil {
			p.Version = versionIn(string(out))
			return p
		}
	}
	p.Missing = "does not tell its version"
	return p
}

// versionIn finds the version in what a program says of itself: the word after
// "version", else the first one that begins with a digit, else nothing.
func versionIn(text string) string {
	words := strings.Fields(text)
	for i, word := range words[:max(0, len(words)-1)] {
		if strings.EqualFold(strings.TrimSuffix(word, ":"), "version") {
			return strings.TrimSuffix(words[i+1], ",")
		}
	}
	for _, word := range words {
		if word[0] >= '0' && word[0] <= '9' {
			return word
		}
	}
	return ""
}

// find is the path of an installed program, "" when there is none.
func find(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}
