//go:build peers

package peers

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// testAppArmor: containers have the engine's profile, and so has an exec.
func testAppArmor(t *testing.T, e *engine) {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(enabled), "Y") {
		t.Skip("this kernel runs without AppArmor")
	}
	const current = "/proc/self/attr/apparmor/current"
	profile := regexp.MustCompile(`^(containers|docker)-default[^ ]* \(enforce\)$`)
	e.detached(t, "profile", []string{"--network", "none"}, "sleep 1000")
	for _, argv := range [][]string{
		e.run([]string{"--rm", "--network", "none"}, "cat", current), {"exec", "profile", "cat", current},
	} {
		if got := e.must(t, argv...); !profile.MatchString(got) {
			t.Errorf("%q: the profile is %q", argv, got)
		}
	}
	unconfined := e.run([]string{"--rm", "--network", "none", "--security-opt", "apparmor=unconfined"}, "cat", current)
	if got := e.must(t, unconfined...); got != "unconfined" {
		t.Errorf("unconfined: the profile is %q", got)
	}
}
