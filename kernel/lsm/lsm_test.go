package lsm

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// The kernel's own list, where securityfs is mounted, is what the probes are
// held against.
func TestProbesAgreeWithTheKernel(t *testing.T) {
	list, err := os.ReadFile("/sys/kernel/security/lsm")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("securityfs is not mounted")
	}
	if err != nil {
		t.Fatal(err)
	}
	names := "," + strings.TrimSpace(string(list)) + ","
	for name, got := range map[string]bool{"apparmor": AppArmor(), "selinux": SELinux()} {
		if want := strings.Contains(names, ","+name+","); got != want {
			t.Errorf("%s: %t, the kernel says %t (%s)", name, got, want, list)
		}
	}
}
