package render

import (
	"strings"
	"testing"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
)

func TestCheck(t *testing.T) {
	checked := map[string]int{"containers": 2, "images": 1, "networks": 3}
	for _, tc := range []struct {
		findings []client.CheckFinding
		want     string
	}{
		{nil, "2 containers, 1 image and 3 networks checked: nothing found\n"},
		{[]client.CheckFinding{
			{Object: "link berth0", Problem: "it is down", Remedy: "set it up", Repairable: true},
			{Object: "image a", Problem: "its blob is missing", Remedy: "pull it again"},
		}, "link berth0: it is down\n  remedy: set it up (--repair does it)\nimage a: its blob is missing\n  remedy: pull it again\n" +
			"2 containers, 1 image and 3 networks checked: 2 findings\n"},
		{[]client.CheckFinding{
			{Object: "link berth0", Problem: "it is down", Remedy: "set it up", Repairable: true, Repaired: "set it up"},
			{Object: "file x", Problem: "it is gone", Remedy: "write it again", Repairable: true, Error: "disk full"},
		}, "link berth0: it is down\n  repaired: set it up\nfile x: it is gone\n  not repaired: disk full\n  remedy: write it again\n" +
			"2 containers, 1 image and 3 networks checked: 2 findings, 1 repaired\n"},
	} {
		var b strings.Builder
		if err := Check(&b, &client.Check{Checked: checked, Findings: tc.findings}); err != nil || b.String() != tc.want {
			t.Errorf("got %q, %v\nwant %q", b.String(), err, tc.want)
		}
	}
}
