package main

import (
	"fmt"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/oci"
)

// CVE-2026-30892: exec --user was read so that the command ran as root.
func TestExecUser(t *testing.T) {
	const refused = "refused"
	for user, want := range map[string]string{
		"":           "7:8", // the container's own
		"0":          "0:8",
		"1":          "1:8",
		"1000":       "1000:8",
		"1000:0":     "1000:0",
		"1000:50":    "1000:50",
		"0:0":        "0:0",
		"4294967294": "4294967294:8",
		// To the kernel -1 means "as it is", which is root.
		"4294967295":              refused,
		"1:4294967295":            refused,
		"4294967296":              refused,
		"1:4294967296":            refused,
		"-1":                      refused,
		"1:-1":                    refused,
		"+1":                      refused,
		"1000:":                   refused,
		":50":                     refused,
		":":                       refused,
		"1:2:3":                   refused,
		" 1":                      refused,
		"1 ":                      refused,
		"1:2 ":                    refused,
		"1\n":                     refused,
		"0x10":                    refused,
		"1_000":                   refused,
		"1e3":                     refused,
		"1.0":                     refused,
		"1000.50":                 refused,
		"1000,50":                 refused,
		"root":                    refused,
		"1000:root":               refused,
		"１":                       refused,
		"99999999999999999999999": refused,
	} {
		e := execFlags{user: user}
		pr := &specs.Process{Args: []string{"true"}, Cwd: "/", User: specs.User{UID: 7, GID: 8}}
		err := e.setUser(pr)
		if err == nil {
			err = oci.CheckProcess(pr)
		}
		got := fmt.Sprintf("%d:%d", pr.User.UID, pr.User.GID)
		if err != nil {
			got = refused
		}
		if got != want {
			t.Errorf("--user %q: %s (%v), want %s", user, got, err, want)
		}
	}
}

func TestExecGroups(t *testing.T) {
	for group, ok := range map[string]bool{"0": true, "5": true, "": false, "-1": false, "+5": false, "wheel": false, "4294967295": false, "5,6": false} {
		e := execFlags{gids: list{"3", group}}
		pr := &specs.Process{Args: []string{"true"}, Cwd: "/"}
		err := e.setUser(pr)
		if err == nil {
			err = oci.CheckProcess(pr)
		}
		if (err == nil) != ok {
			t.Errorf("--additional-gids %q: %v", group, err)
		}
	}
}
