package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"

	"github.com/berth-containers/berth/bench/report"
)

// snapshotRuns is how many containers are run on each image that was loaded.
const snapshotRuns = 5

// compareSnapshotters measures what Berth's ways of keeping layers cost: to bring
// an image in, to run a container of it, and the room they take.
func (b *bench) compareSnapshotters(ctx context.Context) error {
	stores, err := b.mountStores(ctx)
	if err != nil {
		return err
	}
	archive, err := b.pulledArchive(ctx)
	if err != nil {
		return err
	}
	list := []*snapshotting{}
	for _, name := range []string{report.DefaultSnapshotter, "erofs", "native"} {
		list = append(list, &snapshotting{
			name: name, dir: filepath.Join(stores, "snapshotter-"+name),
			load: report.Timing{Kind: report.Snapshots, Case: "load", Loop: report.Tight, Candidate: name},
			run:  report.Timing{Kind: report.Snapshots, Case: "run --rm --network none", Loop: report.Tight, Candidate: name},
		})
	}
	for round := range b.plan.pullRounds {
		for _, i := range rand.Perm(len(list)) {
			s := list[i]
			if s.missing {
				continue
			}
			progress("snapshotter %s, round %d", s.name, round+1)
			if err := b.trySnapshotter(ctx, s, round, archive); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	for _, of := range []func(*snapshotting) *report.Timing{
		func(s *snapshotting) *report.Timing { return &s.load }, func(s *snapshotting) *report.Timing { return &s.run },
	} {
		for _, s := range list {
			if !s.missing {
				b.keep([]*report.Timing{of(s)})
			}
		}
	}
	for _, s := range list {
		if !s.missing {
			b.results.Snapshotters = append(b.results.Snapshotters, s.room)
		}
	}
	return nil
}

// snapshotting is a snapshotter that is measured.
type snapshotting struct {
	name, dir string
	missing   bool
	load, run report.Timing
	room      report.Snapshotter
}

// engine is an engine with a new store of the snapshotter. Its directory for
// sockets is its own, too, as the keeper stays.
func (s *snapshotting) engine(b *bench, round int) (*engine, error) {
	place, err := b.newPlace(report.BerthEngine+"-"+s.name, false)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(b.stage.Work, s.name+".toml")
	if err := os.WriteFile(config, []byte("[image]\nsnapshotter = \""+s.name+"\"\n"), 0o600); err != nil {
		return nil, errors.Join(err, place.close())
	}
	run := filepath.Join("/run", fmt.Sprintf("berth-%s-%d", s.name, round))
	return &engine{
		place: place, name: report.BerthEngine, image: pulledImage,
		client: []string{filepath.Join(b.bin, "berth"), "--host", "unix://" + filepath.Join(run, "berth.sock")},
		services: [][]string{{
			filepath.Join(b.bin, "berthd"), "--config", config, "--run-root", run,
			"--state-root", fmt.Sprintf("%s-%d", s.dir, round), "--cgroup-parent", place.account.Containers(),
		}},
	}, nil
}

func (b *bench) trySnapshotter(ctx context.Context, s *snapshotting, round int, archive string) (err error) {
	e, err := s.engine(b, round)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stopServices(), e.close()) }()
	if err := b.startServices(ctx, e); err != nil {
		if s.missing = round == 0; !s.missing {
			return err
		}
		b.note("The snapshotter %s is not measured: %v.", s.name, err)
		return nil
	}
	if err := b.bring(ctx, &puller{engine: e}, "", false, plainLoad(e, archive), &s.load); err != nil {
		return err
	}
	dir := fmt.Sprintf("%s-%d", s.dir, round)
	image, err := room(dir)
	if err != nil {
		return err
	}
	for range snapshotRuns {
		argv := e.runArgv([]string{"--rm", "--network", "none"}, "true")
		if err := b.bring(ctx, &puller{engine: e}, "", false, argv, &s.run); err != nil {
			return err
		}
	}
	if _, err := e.place.run(ctx, e.argv("create", "--name", "idle", e.image, "true")...); err != nil {
		return err
	}
	all, err := room(dir)
	s.room = report.Snapshotter{Candidate: s.name, ImageKiB: image >> 10, ContainerKiB: max(0, all-image) >> 10}
	_, rerr := e.place.run(ctx, e.argv("rm", "idle")...)
	return errors.Join(err, rerr)
}

// room is what a directory takes on the disk, in bytes.
func room(dir string) (bytes int64, err error) {
	type file struct{ dev, ino uint64 }
	seen := map[file]bool{}
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = e.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // of what is being removed
		}
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if id := (file{uint64(st.Dev), st.Ino}); ok && !seen[id] {
			seen[id] = true
			bytes += st.Blocks * 512
		}
		return nil
	})
	return bytes, err
}
