package client

import (
	"context"
	"time"
)

// Check is what a check of the engine has found.
type Check struct {
	// Checked says how much there was to look at.
	Checked  map[string]int
	Findings []CheckFinding
}

// CheckFinding is one thing that is not as the engine's records say.
type CheckFinding struct {
	Object, Problem, Remedy string
	// Repairable says that the engine can mend it.
	Repairable bool
	// Repaired is what the engine has done, Error why it could not.
	Repaired string `json:",omitempty"`
	Error    string `json:",omitempty"`
}

// SystemCheck compares the engine's records with kernel and disk, and mends what
// can be mended when asked to.
func (c *Client) SystemCheck(ctx context.Context, repair bool) (*Check, error) {
	method := "GET"
	if repair {
		method = "POST"
	}
	var out Check
	err := c.call(ctx, Request{Method: method, Path: "/berth/system/check"}, &out)
	return &out, err
}

// Keeper is a keeper at one moment.
type Keeper struct {
	Pid     int
	Version string
	Since   time.Time
}

// KeeperUpgrade is the keeper before and after an upgrade.
type KeeperUpgrade struct{ Before, After Keeper }

// UpgradeKeeper makes the keeper become the program that is installed.
func (c *Client) UpgradeKeeper(ctx context.Context) (*KeeperUpgrade, error) {
	var out KeeperUpgrade
	err := c.call(ctx, Request{Method: "POST", Path: "/berth/system/upgrade-keeper"}, &out)
	return &out, err
}
