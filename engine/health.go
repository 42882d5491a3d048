package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// healthKeep is how many results of a health check are kept, as with Docker.
const healthKeep = 5

// healthFile is where a container's health is kept, beside its record: it
// changes with every probe, the record does not.
const healthFile = "health.json"

// healthCheck is a container's health check at work. It is guarded by the
// container's mu.
type healthCheck struct {
	// now is the state; nil: the container has no health check, or has never
	// run. What it points to is never changed in place.
	now *container.Health
	// cancel ends the probing; nil: there is none.
	cancel context.CancelFunc
}

// healthNow is a container's health; nil without a health check.
func (c *ctr) healthNow() *container.Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.health.now
}

// beginHealth starts the probing of a container that has just been started,
// from the beginning. The caller holds act.
func (e *Engine) beginHealth(c *ctr) {
	if healthCommand(c.rec.Config) == nil {
		return
	}
	next := &container.Health{Status: container.Starting}
	if old := c.healthNow(); old != nil {
		next.Log = old.Log
	}
	if err := c.setHealth(next); err != nil {
		e.log.Error("write health", "container", c.id, "err", err)
	}
	e.watchHealth(c, c.healthPause(c.rec))
}

// resumeHealth goes on probing a container that was paused, or that ran while
// there was no engine. The caller holds act.
func (e *Engine) resumeHealth(c *ctr) {
	if healthCommand(c.rec.Config) == nil {
		return
	}
	h := c.healthNow()
	if h == nil {
		e.beginHealth(c)
		return
	}
	pause := c.healthPause(c.rec)
	if n := len(h.Log); n > 0 && h.Log[n-1].End.After(c.rec.State.StartedAt) {
		pause = max(0, time.Until(h.Log[n-1].End.Add(pause)))
	}
	e.watchHealth(c, pause)
}

// watchHealth probes until haltHealth is called, first after the pause.
func (e *Engine) watchHealth(c *ctr, pause time.Duration) {
	c.haltHealth()
	ctx, cancel := context.WithCancel(e.ctx)
	c.mu.Lock()
	c.health.cancel = cancel
	c.mu.Unlock()
	rec := c.rec
	e.wg.Go(func() {
		defer cancel()
		timer := time.NewTimer(pause)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
			if err := e.noteHealth(ctx, c, e.probe(ctx, c, rec)); err != nil {
				e.log.Error("write health", "container", c.id, "err", err)
			}
			timer.Reset(c.healthPause(rec))
		}
	})
}

// haltHealth ends the probing, of which no further result is noted.
func (c *ctr) haltHealth() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.health.cancel != nil {
		c.health.cancel()
		c.health.cancel = nil
	}
}

// endHealth ends the probing of a container that has ended. It counts as
// unhealthy from then on, as with Docker. The caller holds act.
func (e *Engine) endHealth(c *ctr) {
	c.haltHealth()
	h := c.healthNow()
	if h == nil || h.Status == container.Unhealthy {
		return
	}
	next := *h
	next.Status = container.Unhealthy
	if err := c.setHealth(&next); err != nil {
		e.log.Error("write health", "container", c.id, "err", err)
	}
}

// healthPause is the time between two probes: a shorter one while the
// container starts.
func (c *ctr) healthPause(rec *record) time.Duration {
	check := rec.Config.Healthcheck
	h := c.healthNow()
	if h != nil && h.Status == container.Starting && time.Since(rec.State.StartedAt) < check.StartPeriod {
		return orElse(check.StartInterval, healthStartInterval)
	}
	return orElse(check.Interval, healthInterval)
}

// noteHealth takes a probe's result into account, unless the probing has ended
// meanwhile.
func (e *Engine) noteHealth(ctx context.Context, c *ctr, result *container.HealthcheckResult) error {
	c.mu.Lock()
	if ctx.Err() != nil || c.removed {
		c.mu.Unlock()
		return nil
	}
	before, rec := c.health.now.Status, *c.rec
	next := judge(c.health.now, &rec, result)
	c.health.now = next
	err := c.saveHealth(next)
	c.wake()
	c.mu.Unlock()
	if next.Status != before {
		e.emitContainer(&rec, events.ActionHealthStatus+": "+events.Action(next.Status), nil)
	}
	return err
}

// judge is the health after a probe. A failure does not count while the
// container starts and its start period lasts.
func judge(h *container.Health, rec *record, result *container.HealthcheckResult) *container.Health {
	check := rec.Config.Healthcheck
	next := *h
	next.Log = append(slices.Clone(h.Log[max(0, len(h.Log)-healthKeep+1):]), result)
	switch {
	case result.ExitCode == 0:
		next.Status, next.FailingStreak = container.Healthy, 0
	case h.Status == container.Starting && result.Start.Sub(rec.State.StartedAt) < check.StartPeriod:
	default:
		next.FailingStreak++
		if next.FailingStreak >= orElse(check.Retries, healthRetries) {
			next.Status = container.Unhealthy
		}
	}
	return &next
}

// setHealth shows a new health and writes it down.
func (c *ctr) setHealth(h *container.Health) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.health.now = h
	return c.saveHealth(h)
}

func (c *ctr) saveHealth(h *container.Health) error {
	data, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode health: %w", err)
	}
	return writeFileAtomic(filepath.Join(c.dir, healthFile), data, 0o600)
}

// loadHealth reads a container's health. One that cannot be read is as good as
// none: the next probe tells.
func (c *ctr) loadHealth() error {
	data, err := os.ReadFile(filepath.Join(c.dir, healthFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	h := new(container.Health)
	if json.Unmarshal(data, h) == nil && !slices.Contains(h.Log, nil) {
		c.health.now = h
	}
	return nil
}

// shownHealth is the health as inspect shows it; nil: the container has no
// health check, or has never run.
func (c *ctr) shownHealth() *container.Health {
	h := c.healthNow()
	if h == nil {
		return nil
	}
	shown := *h
	if shown.Log == nil {
		shown.Log = []*container.HealthcheckResult{}
	}
	return &shown
}

// summarizeHealth is the health as lists show it.
func summarizeHealth(h *container.Health) *container.HealthSummary {
	if h == nil {
		return &container.HealthSummary{Status: container.NoHealthcheck}
	}
	return &container.HealthSummary{Status: h.Status, FailingStreak: h.FailingStreak}
}

// healthText is what lists put behind the time a container is up.
func healthText(h *container.Health) string {
	switch {
	case h == nil:
		return ""
	case h.Status == container.Starting:
		return " (health: starting)"
	}
	return " (" + string(h.Status) + ")"
}
