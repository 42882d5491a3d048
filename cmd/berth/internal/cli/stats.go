package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/render"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// statistics are the flags of stats.
type statistics struct {
	all, noStream, noTrunc bool
	format                 string
}

func newStats(a *app) *cobra.Command {
	var s statistics
	cmd := verb("stats [OPTIONS] [CONTAINER...]", "Display a live stream of container(s) resource usage statistics", 0, -1,
		func(cmd *cobra.Command, args []string) error { return a.stats(cmd.Context(), &s, args) })
	fs := cmd.Flags()
	fs.BoolVarP(&s.all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVar(&s.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	fs.BoolVar(&s.noTrunc, "no-trunc", false, "Do not truncate output")
	fs.StringVar(&s.format, "format", "", listFormatHelp)
	cmd.ValidArgsFunction = a.completeContainers(isRunning)
	return cmd
}

// board holds the newest line of each container that is watched.
type board struct {
	mu    sync.Mutex
	order []string
	lines map[string]render.Stats
	errs  map[string]error
	// stop ends the watch over a container.
	stop map[string]context.CancelFunc
	// first counts the containers whose first line is awaited.
	first sync.WaitGroup
	all   sync.WaitGroup
}

func (a *app) stats(ctx context.Context, s *statistics, refs []string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	b := &board{lines: map[string]render.Stats{}, errs: map[string]error{}, stop: map[string]context.CancelFunc{}}
	ctx, cancel := context.WithCancel(ctx)
	defer b.all.Wait()
	defer cancel()
	watchEvents := len(refs) == 0 && !s.noStream
	var lost chan error
	if watchEvents {
		// Before the list, so that no container falls between the two.
		if lost, err = b.followEvents(ctx, c, s); err != nil {
			return err
		}
	}
	if len(refs) == 0 {
		list, err := c.ContainerList(ctx, client.ListOptions{All: s.all})
		if err != nil {
			return err
		}
		for _, one := range list {
			refs = append(refs, one.ID)
		}
	}
	for _, ref := range refs {
		b.watch(ctx, c, s, ref)
	}
	b.first.Wait()
	if err := b.failure(); err != nil && !watchEvents {
		return err
	}
	return a.showStats(ctx, b, s, lost)
}

// showStats prints the board: once, or twice a second until the engine is gone.
func (a *app) showStats(ctx context.Context, b *board, s *statistics, lost <-chan error) error {
	if s.noStream {
		return render.Rows(a.out, s.format, render.StatsTable, render.StatsHeader(), b.rows())
	}
	onScreen := terminal.Is(a.out)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		var page bytes.Buffer
		if err := render.Rows(&page, s.format, render.StatsTable, render.StatsHeader(), b.rows()); err != nil {
			return err
		}
		text := page.Bytes()
		if onScreen {
			text = overScreen(text)
		}
		if _, err := a.out.Write(text); err != nil {
			return err
		}
		if lost == nil && b.ended() {
			return b.failure()
		}
		select {
		case <-tick.C:
		case err := <-lost:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// overScreen makes a page take the place of the one before: each line clears
// what is left of the old one, so that nothing flickers.
func overScreen(page []byte) []byte {
	text := append([]byte("\x1b[H"), bytes.ReplaceAll(page, []byte("\n"), []byte("\x1b[K\n"))...)
	return append(text, "\x1b[J"...)
}

// followEvents watches containers as they start and drops them as they end. The
// channel yields the error the events end with.
func (b *board) followEvents(ctx context.Context, c *client.Client, s *statistics) (chan error, error) {
	f := client.Filters{}
	f.Add("type", "container")
	req, err := c.Events(ctx, f, "", "")
	if err != nil {
		return nil, err
	}
	lost := make(chan error, 1)
	b.all.Add(1)
	go func() {
		defer b.all.Done()
		lost <- req.Each(func(m *events.Message) error {
			switch m.Action {
			case events.ActionStart:
				b.watch(ctx, c, s, m.Actor.ID)
			case events.ActionCreate:
				if s.all {
					b.watch(ctx, c, s, m.Actor.ID)
				}
			case events.ActionDie:
				if !s.all {
					b.drop(m.Actor.ID)
				}
			case events.ActionDestroy:
				b.drop(m.Actor.ID)
			}
			return nil
		})
	}()
	return lost, nil
}

// watch follows a container's samples.
func (b *board) watch(ctx context.Context, c *client.Client, s *statistics, ref string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.lines[ref]; known {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	b.order, b.lines[ref], b.stop[ref] = append(b.order, ref), render.NoStats(ref), cancel
	delete(b.errs, ref)
	b.first.Add(1)
	b.all.Add(1)
	go func() {
		defer b.all.Done()
		defer cancel()
		arrived := sync.OnceFunc(b.first.Done)
		defer arrived()
		enough := errors.New("one sample is enough")
		// The first sample of a stream has nothing to compare its CPU time with.
		samples := 0
		err := c.ContainerStats(ctx, ref, true, func(r *container.StatsResponse) error {
			b.set(ref, render.NewStats(ref, r, !s.noTrunc))
			if samples++; samples > 1 || !s.noStream {
				arrived()
			}
			if s.noStream && (samples > 1 || r.Read.IsZero()) {
				return enough
			}
			return nil
		})
		if err == nil {
			err = fmt.Errorf("no more stats of container %s", ref)
		}
		if !errors.Is(err, enough) && ctx.Err() == nil {
			b.fail(ref, err)
		}
	}()
}

func (b *board) set(ref string, line render.Stats) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.lines[ref]; known {
		b.lines[ref] = line
	}
}

func (b *board) fail(ref string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.lines[ref]; known {
		b.lines[ref], b.errs[ref] = render.NoStats(ref), err
	}
}

func (b *board) drop(ref string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if stop := b.stop[ref]; stop != nil {
		stop()
	}
	delete(b.lines, ref)
	delete(b.errs, ref)
	for i, r := range b.order {
		if r == ref {
			b.order = append(b.order[:i:i], b.order[i+1:]...)
			break
		}
	}
}

func (b *board) rows() []render.Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := make([]render.Stats, len(b.order))
	for i, ref := range b.order {
		rows[i] = b.lines[ref]
	}
	return rows
}

// ended tells that no container is followed any more.
func (b *board) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.errs) == len(b.order)
}

func (b *board) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, ref := range b.order {
		if err := b.errs[ref]; err != nil && !repeated(errs, err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
