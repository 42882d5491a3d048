package engine

import (
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
)

func TestSimilar(t *testing.T) {
	names := []string{"web", "web-cache", "database", "busybox", "busybox:v2", "a", "ab", "x1"}
	for ref, want := range map[string]string{
		"wbe": "web", "databse": "database", "databaes": "database", "busybxo": "busybox", "web-cach": "web-cache", "data": "database",
		"nosuch": "", "b": "", "x2": "", "WEB": "web", "busybox": "busybox:v2",
	} {
		if got := strings.Join(similar(ref, names), " "); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q is like %q, want %q", ref, got, want)
		}
	}
}

func TestSuggestingKeepsTheHint(t *testing.T) {
	err := errdefs.WithHint(errNoContainer("wbe"), "make one")
	if got := errdefs.Hint(suggesting(err, "wbe", []string{"web"})); got != "did you mean web? Else make one" {
		t.Errorf("hint %q", got)
	}
	if got := errdefs.Hint(suggesting(err, "other", []string{"web"})); got != "make one" {
		t.Errorf("hint %q", got)
	}
}
