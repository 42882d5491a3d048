package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// measureUpgrades measures what clients notice when the keeper becomes another
// program: a container prints a line every few milliseconds, one client is attached to
// it, another follows its log, and commands are executed in it one after the other.
// What counts is the longest time between two lines that arrive, and the longest
// execution, once with upgrades in between and once without.
func (b *bench) measureUpgrades(ctx context.Context, e *engine) (err error) {
	progress("upgrades of the keeper")
	if err := b.startServices(ctx, e); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stopServices()) }()
	_, err = e.place.run(ctx, e.runArgv([]string{"--detach", "--name", "gap", "--network", "none"},
		"sh", "-c", "while :; do echo x; usleep 2000; done")...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.remove(context.WithoutCancel(ctx), []string{"gap"})) }()
	idle, err := e.listen(ctx, b.plan.upgrades, nil)
	if err != nil {
		return err
	}
	upgraded, err := e.listen(ctx, b.plan.upgrades, e.argv("system", "upgrade-keeper"))
	if err != nil {
		return err
	}
	b.note("Upgrade of the keeper, %d times while a container printed a line every 2 ms: the longest gap between two lines was %s for an attached "+
		"client (%s without upgrades) and %s for one that follows the log (%s); the longest `exec` of `true` took %s (%s), the median one %s (%s).",
		b.plan.upgrades, upgraded.attach, idle.attach, upgraded.log, idle.log, upgraded.exec, idle.exec, upgraded.median, idle.median)
	return nil
}

// gaps are the longest that a client waited for something.
type gaps struct{ attach, log, exec, median time.Duration }

// listen runs a command, if there is one, times times, with an exec after each, while
// two clients take the container's output.
func (e *engine) listen(ctx context.Context, times int, command []string) (g gaps, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	attach, err := e.follow(ctx, &clients, "attach", "--no-stdin", "gap")
	if err != nil {
		return g, err
	}
	logs, err := e.follow(ctx, &clients, "logs", "--follow", "--tail", "1", "gap")
	if err != nil {
		return g, err
	}
	var execs []time.Duration
	for range times {
		done := make(chan error, 1)
		go func() {
			if command == nil {
				done <- nil
				return
			}
			_, err := e.place.options.Command(command...).Output()
			done <- err
		}()
		for upgrading := true; upgrading; {
			began := time.Now()
			if _, err := e.place.options.Command(e.argv("exec", "gap", "true")...).Output(); err != nil {
				return g, fmt.Errorf("exec: %w", err)
			}
			execs = append(execs, time.Since(began))
			select {
			case err := <-done:
				if err != nil {
					return g, err
				}
				upgrading = false
			default:
			}
		}
	}
	slices.Sort(execs)
	millis := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	return gaps{attach: millis(attach()), log: millis(logs()), exec: millis(execs[len(execs)-1]), median: millis(execs[len(execs)/2])}, nil
}

// follow starts a client and returns once it has printed a line. longest is the
// longest time between two lines so far.
func (e *engine) follow(ctx context.Context, clients *sync.WaitGroup, args ...string) (longest func() time.Duration, err error) {
	cmd := e.place.options.Command(e.argv(args...)...)
	r, w := io.Pipe()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	clients.Go(func() { _ = cmd.Wait(); w.Close() }) // it is killed when enough was heard
	context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	var mu sync.Mutex
	var most time.Duration
	first := make(chan struct{})
	clients.Go(func() {
		lines := bufio.NewScanner(r)
		for last := (time.Time{}); lines.Scan(); {
			now := time.Now()
			if last.IsZero() {
				close(first)
			} else {
				mu.Lock()
				most = max(most, now.Sub(last))
				mu.Unlock()
			}
			last = now
		}
	})
	select {
	case <-first:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return most
	}, nil
}
