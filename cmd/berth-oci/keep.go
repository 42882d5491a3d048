package main

import (
	"context"
	"flag"
	"os/signal"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/keeper"
)

// runKeep is the keeper: it stays as long as its containers do.
func runKeep(_ *app, _ *flag.FlagSet, args []string) (int, error) {
	options, err := keeper.ParseArgs(args)
	if err != nil {
		return 1, err
	}
	debug.SetGCPercent(100)        // off for the short-lived commands, see main
	runtime.SetDefaultGOMAXPROCS() // 1 for them, see entry_amd64.s
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	return 0, keeper.Serve(ctx, options)
}
