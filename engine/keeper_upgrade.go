package engine

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/keeper"
)

// KeeperState is a keeper at one moment.
type KeeperState struct {
	Pid int
	// Version is that of its program, empty when it does not say. Since is when it
	// became the keeper.
	Version string    `json:",omitempty"`
	Since   time.Time `json:",omitzero"`
}

// KeeperUpgrade is the keeper before and after. The process is the same.
type KeeperUpgrade struct{ Before, After KeeperState }

func keeperState(i keeper.Info) KeeperState {
	return KeeperState{Pid: i.Pid, Version: i.Version, Since: i.Begun}
}

// UpgradeKeeper makes the keeper become the program that is now where berth-oci is
// installed. Containers do not notice: their streams, logs and exits go on, and who is
// attached stays attached. A program that cannot go on is an ErrUnsupported; nothing
// has changed then.
func (e *Engine) UpgradeKeeper(ctx context.Context) (*KeeperUpgrade, error) {
	binary := e.keeper.opts.Binary
	if !filepath.IsAbs(binary) {
		found, err := exec.LookPath(binary)
		if err != nil {
			return nil, fmt.Errorf("upgrade keeper: %w", err)
		}
		binary = found
	}
	before, after, err := e.keeper.upgrade(ctx, binary)
	if err != nil {
		return nil, err
	}
	e.log.Info("upgraded the keeper", "pid", after.Pid, "version", after.Version, "program", binary)
	return &KeeperUpgrade{Before: keeperState(before), After: keeperState(after)}, nil
}

// turnPatience is how long requests under way may keep an upgrade waiting.
const turnPatience = 10 * time.Second

// lockTurn waits for the requests under way, without keeping others from beginning
// meanwhile: one that hangs, a start with a hook that does not end, is not to hang
// all of them.
func (l *keeperLink) lockTurn(ctx context.Context) error {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	patience := time.NewTimer(turnPatience)
	defer patience.Stop()
	for !l.turn.TryLock() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience.C:
			return errdefs.WithHint(errdefs.As(errdefs.ErrUnavailable, errors.New("upgrade keeper: it is at work on requests that do not end")),
				"berth system ops lists what is under way")
		}
	}
	return nil
}

// upgrade waits for the requests under way and lets no other begin meanwhile.
func (l *keeperLink) upgrade(ctx context.Context, binary string) (before, after keeper.Info, err error) {
	if err := l.lockTurn(ctx); err != nil {
		return before, after, err
	}
	defer l.turn.Unlock()
	c, err := l.connect(ctx)
	if err != nil {
		return before, after, err
	}
	before = c.Info()
	if err := c.Upgrade(ctx, binary); err != nil {
		return before, after, err
	}
	if c, err = l.connect(ctx); err != nil {
		return before, after, fmt.Errorf("upgrade keeper: %w", err)
	}
	return before, c.Info(), nil
}

// considerUpgrade upgrades a keeper that runs from another program than the one that
// is installed, where the configuration wants it. A keeper of before there were
// upgrades does not say what it runs from.
func (e *Engine) considerUpgrade(ctx context.Context) error {
	c, err := e.keeper.connect(ctx)
	if err != nil {
		return err
	}
	installed := keeper.ProgramID(e.keeper.opts.Binary)
	if running := c.Info().Program; running == "" || installed == "" || running == installed {
		return nil
	}
	if !e.cfg.UpgradeKeeper {
		e.log.Info("the keeper runs from another program than the one that is installed: berth system upgrade-keeper",
			"pid", c.Info().Pid, "version", c.Info().Version)
		return nil
	}
	if err := e.patiently(ctx, func(ctx context.Context) error {
		_, err := e.UpgradeKeeper(ctx)
		return err
	}); err != nil {
		// It is as good as it was, and containers count on it.
		e.log.Error("upgrade the keeper", "err", err)
	}
	return nil
}
