// Package executed waits for processes to be past their execve(2).
package executed

import (
	"fmt"
	"os"
	"regexp"
	"testing"
)

var ended = regexp.MustCompile(`(?m)^State:\s+[ZX]`)

// Await returns when execve(2) is done with a process, or the process has ended. Who
// starts one hears of it when descriptors are closed; name, labels and capabilities
// change after that, and what others see as its arguments last of all.
func Await(t testing.TB, pid int) {
	t.Helper()
	for {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			t.Fatal(err)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if len(args) > 0 || err != nil || ended.Match(status) {
			return
		}
	}
}
