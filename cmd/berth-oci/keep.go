package main

import (
	"context"
	"flag"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/keeper"
)

// runKeep is the keeper: it stays as long as its containers do.
func runKeep(_ *app, _ *flag.FlagSet, args []string) (int, error) {
	fault.Arm()
	options, err := keeper.ParseArgs(args)
	if err != nil {
		return 1, err
	}
	options.Version = version
	if err := liveLong(); err != nil {
		return 1, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	return 0, keeper.Serve(ctx, options)
}
