//go:build peers

package peers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// testPropagation: what a container mounts below an rshared volume shows on the
// host, and below an rslave one it does not.
func testPropagation(t *testing.T, e *engine) {
	dir := t.TempDir()
	if err := unix.Mount("shared", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	for option, shows := range map[string]bool{"rshared": true, "rslave": false} {
		options := []string{"--rm", "--network", "none", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined",
			"--security-opt", "apparmor=unconfined", "-v", dir + ":/mnt:" + option}
		e.must(t, e.run(options, "sh", "-c", "mkdir /mnt/"+option+" && mount -t tmpfs from-inside /mnt/"+option)...)
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(mounts), " "+filepath.Join(dir, option)+" "); got != shows {
			t.Errorf("%s: the container's mount shows on the host: %t", option, got)
		}
	}
}
