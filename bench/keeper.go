package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/bench/report"
	"github.com/berth-containers/berth/keeper"
	"github.com/berth-containers/berth/oci"
)

// keeperCandidate is a running keeper with the bundles of a runtime.
type keeperCandidate struct {
	*ociRuntime
	client *keeper.Client
	specs  map[string]*specs.Spec // by the kind's name
}

// openKeeper starts a keeper and reads its bundles. The caller closes it.
func (b *bench) openKeeper(ctx context.Context) (_ *keeperCandidate, err error) {
	place, err := b.newPlace("keeper", false)
	if err != nil {
		return nil, err
	}
	k := &keeperCandidate{ociRuntime: &ociRuntime{place: place, name: report.BerthKeeper}, specs: map[string]*specs.Spec{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.close())
		}
	}()
	if err := b.writeBundles(k.ociRuntime); err != nil {
		return nil, err
	}
	for _, kind := range kinds() {
		raw, err := os.ReadFile(filepath.Join(b.bundle(k.ociRuntime, kind.Name), "config.json"))
		if err != nil {
			return nil, err
		}
		if k.specs[kind.Name], err = oci.ParseSpec(raw); err != nil {
			return nil, err
		}
	}
	k.client, err = keeper.Connect(ctx, keeper.ConnectOptions{Root: "/run/state/keeper", Binary: filepath.Join(b.bin, "berth-oci"), Idle: time.Second})
	if err != nil {
		return nil, err
	}
	return k, os.WriteFile(place.account.Commands(), []byte(strconv.Itoa(k.client.Info().Pid)), 0)
}

// close lets the keeper end, which has no container any more.
func (k *keeperCandidate) close() error {
	if k.client != nil {
		if err := k.client.Close(); err != nil {
			return errors.Join(err, k.place.close())
		}
	}
	return k.place.close()
}

// run starts a container, waits for its end and lets the keeper forget it.
func (k *keeperCandidate) run(ctx context.Context, t *report.Timing, kind string, counts bool) error {
	before, err := k.account.Usage()
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := k.client.Start(ctx, &keeper.StartRequest{ID: "c", Spec: k.specs[kind]}); err != nil {
		return err
	}
	status, err := k.client.Wait(ctx, "c", "")
	if err != nil {
		return err
	}
	if err := k.client.Forget(ctx, "c", ""); err != nil {
		return err
	}
	wall := time.Since(began)
	if status.ExitCode != 0 || status.Error != "" {
		return fmt.Errorf("%s: the container ended with %+v", report.BerthKeeper, status)
	}
	after, err := k.account.Usage()
	if err == nil && counts {
		t.WallMS = append(t.WallMS, rounded(wall))
		t.CPUMS = append(t.CPUMS, rounded(after-before))
	}
	return err
}
