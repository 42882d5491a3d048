// Command berthd is Berth's engine daemon: it reads its configuration, opens
// the engine, serves the Docker Engine API and stops when told to. Containers
// run on without it: they belong to the keeper.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/berth-containers/berth/api/docker"
	"github.com/berth-containers/berth/cmd/berthd/internal/telemetry"
	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2 // a flag or the configuration file is wrong
)

// version is the build's version; the linker sets it (-X main.version=...).
var version = "dev"

// shutdownGrace is how long requests that are under way may take when the
// daemon stops; a stop with grace in a container is the longest of them.
const shutdownGrace = 15 * time.Second

// traceGrace is how long the last spans may take to be sent.
const traceGrace = 3 * time.Second

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with its surroundings as arguments; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	cfg, act, err := readConfig(args, stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return exitOK
	case err != nil:
		report(stderr, err)
		return exitUsage
	}
	switch act {
	case showVersion:
		fmt.Fprintln(stdout, buildLine())
		return exitOK
	case checkOnly:
		fmt.Fprintln(stdout, "configuration is valid")
		return exitOK
	}
	if act == purgeAll {
		err = purge(cfg)
	} else {
		err = serve(cfg, args)
	}
	if errors.Is(err, errRunning) && cfg.auto {
		err = nil // somebody else was faster: what was wanted is there
	}
	if err != nil {
		report(stderr, err)
		return exitError
	}
	return exitOK
}

// report prints an error and, where there is one, its remedy.
func report(w io.Writer, err error) {
	fmt.Fprintf(w, "berthd: %v\n", err)
	if hint := errdefs.Hint(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// serve builds the daemon's parts in order, runs until a signal and takes them
// down in reverse.
func serve(cfg *config, args []string) (err error) {
	if err := requireRoot(); err != nil {
		return err
	}
	fault.Arm()
	notify := takeNotifySocket()

	// Not below a directory that somebody may want to unmount, and with files
	// of predictable modes.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	unix.Umask(0o022)

	// 1. The roots are ours alone.
	locks, err := lockRoots(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locks.release()) }()

	// 2. The log.
	logger, level := newLogger(cfg, os.Stderr)
	warn(cfg, logger)

	// 3. The sockets are checked before the work begins, and opened when it is done.
	listeners, err := bindSockets(cfg)
	if err != nil {
		return err
	}
	defer listeners.close()

	// 4. A signal, from here on, ends the daemon in order; but not SIGPIPE, when
	// who reads the log goes away. That one is caught, not ignored: the keeper
	// and its containers would inherit that.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	stop, release := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer release()
	var running atomic.Pointer[engine.Engine]
	defer reloadOnHangup(stop, args, logger, level, &running)()

	// 5. Those who look on: counters, traces where they are asked for.
	metrics := telemetry.NewMetrics(version)
	tracer, err := telemetry.NewTracer(stop, cfg.TraceEndpoint, version)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeTracer(tracer)) }()
	observer := &telemetry.Observer{Metrics: metrics, Tracer: tracer}

	// 6. The engine: reloads its records and meets the keeper.
	commit, built := buildInfo()
	settings := cfg.engine(version, commit, built, logger)
	settings.Observe = observer.Operation
	eng, err := engine.Open(stop, settings)
	if err != nil {
		return fmt.Errorf("open engine: %w", err)
	}
	defer func() { err = errors.Join(err, eng.Close()) }()

	running.Store(eng)
	defer running.Store(nil)
	metrics.Watch(eng)
	onlookers, err := telemetry.Listen(cfg.debugSocket(), cfg.MetricsAddress, metrics, level)
	if err != nil {
		return err
	}
	onlookers.Serve()
	defer func() { err = errors.Join(err, onlookers.Close()) }()

	// 7. The door.
	api := docker.New(docker.Config{Engine: eng, Version: version, Observe: observer.Request, Logger: logger})
	open, err := listeners.open()
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // what the start needed, the idle daemon does not
	if err := notify.send("READY=1"); err != nil {
		return err
	}
	logger.Info("ready", "version", version, "pid", os.Getpid(), "listening", listeners.names())

	err = serveUntil(stop, api, open)
	release() // a second signal kills
	logger.Info("stopping")
	return errors.Join(err, notify.send("STOPPING=1"), shutDown(api))
}

// closeTracer sends the last spans, within bounds. That nobody takes them is no
// failure of the daemon.
func closeTracer(t *telemetry.Tracer) error {
	ctx, cancel := context.WithTimeout(context.Background(), traceGrace)
	defer cancel()
	if err := t.Close(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// requireRoot says what is missing before something fails for the lack of it.
func requireRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return errdefs.WithHint(errdefs.As(errdefs.ErrPermission, errors.New("must run as root")), "start it with sudo, or enable berthd.service")
}

// purge removes all that Berth has on this host. It takes the daemon's locks:
// where one runs nothing is removed.
func purge(cfg *config) (err error) {
	if err := requireRoot(); err != nil {
		return err
	}
	locks, err := lockRoots(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locks.release()) }()
	stop, release := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer release()
	logger, _ := newLogger(cfg, os.Stderr)
	return engine.Purge(stop, cfg.engine(version, "", "", logger))
}

// serveUntil answers requests on the listeners until ctx ends or one fails.
func serveUntil(ctx context.Context, api *docker.Server, open []net.Listener) error {
	group, failed := errgroup.WithContext(ctx)
	for _, l := range open {
		group.Go(func() error { return api.Serve(l) })
	}
	<-failed.Done()
	if ctx.Err() != nil {
		return nil // Serve returns when shutDown closes the listeners
	}
	return group.Wait()
}

// shutDown lets the requests under way finish, within bounds.
func shutDown(api *docker.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	return api.Shutdown(ctx)
}

// warn says what the configuration makes less safe.
func warn(cfg *config, logger *slog.Logger) {
	for _, host := range cfg.Hosts {
		if network, _, _ := splitHost(host); network == "tcp" {
			logger.Warn("every local user can become root through this address", "host", host)
		}
	}
}
