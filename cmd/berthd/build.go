package main

import (
	"runtime"
	"runtime/debug"
)

// buildInfo returns the commit and its time as the Go toolchain recorded them,
// empty when it did not.
func buildInfo() (commit, built string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.time":
			built = s.Value
		}
	}
	return commit, built
}

// buildLine is what --version shows.
func buildLine() string {
	line := "berthd version " + version
	if commit, _ := buildInfo(); commit != "" {
		line += ", build " + commit[:min(12, len(commit))]
	}
	return line + ", " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
