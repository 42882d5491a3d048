// Package engine is what users speak of: containers, execs, images, networks
// and events. It joins the parts below (image, network, keeper, kernel/cgroup)
// and owns every state change. The doors (the Docker API and, later, others)
// translate to and from it and hold no state of their own.
//
// Every method may be called from any goroutine. Errors carry a class of
// package errdefs and, where there is a remedy, a hint.
//
// # Crashes
//
// The engine may be killed at any moment. A container's record is on disk
// before the act it describes, the keeper holds what runs and what has ended,
// and [Open] brings the two together: see reconcile.go.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-containers/berth/image"
	"github.com/berth-containers/berth/keeper"
	"github.com/berth-containers/berth/network"
	"github.com/berth-containers/berth/volume"
)

// Config says where the engine lives and what its defaults are. The zero value
// of each field is usable.
type Config struct {
	// StateRoot holds what survives a reboot: images, container records,
	// volumes. Zero: /var/lib/berth.
	StateRoot string
	// RunRoot holds sockets and runtime state, best on a tmpfs. Zero: /run/berth.
	RunRoot string
	// BerthOCI is the path of the berth-oci binary, started as the keeper when
	// none answers. Zero: berth-oci beside the running binary, then $PATH.
	BerthOCI string
	// BridgeName is the link of the default bridge network. Zero: berth0.
	BridgeName string
	// BridgeSubnet is the default bridge's IPv4 subnet in CIDR notation.
	// Zero: the network part's default.
	BridgeSubnet string
	// UpgradeKeeper makes a keeper that runs from another program than BerthOCI
	// become that, at Open. Zero: it stays, and the log says so.
	UpgradeKeeper bool
	// CgroupParent is the cgroup below which containers live. Zero: /berth.
	CgroupParent string
	// InsecureRegistries are the host[:port] spoken to without TLS. Loopback
	// addresses always are.
	InsecureRegistries []string
	// MaxLayerSize and MaxLayerFiles bound what a layer of an image may unpack
	// to. Zero: 100 GiB, and 4 million files.
	MaxLayerSize, MaxLayerFiles int64
	// Snapshotter is how layers are kept and stacked: overlayfs, erofs or
	// native. Zero: what the store was made with, else what works here.
	Snapshotter string
	// StorageOptions are those of containers that do not say themselves; there is
	// size, what their files may take. CheckStorage tells whether they are good.
	StorageOptions map[string]string
	// RegistryDirs are searched for what is configured about a registry: a
	// directory with its name that holds hosts.toml or certificates.
	RegistryDirs []string
	// LogDriver is the log driver of containers that name none, one of
	// LogDrivers. Zero: json-file.
	LogDriver string
	// LogOptions are the options of LogDriver for containers that do not say
	// themselves. CheckLog tells whether they are good.
	LogOptions map[string]string
	// JournalSocket is where the log driver journald sends to. Zero: systemd's.
	JournalSocket string
	// DefaultShmSize is the size of /dev/shm in bytes. Zero: 64 MiB.
	DefaultShmSize int64
	// StopTimeout is how many seconds a container gets between its stop signal
	// and SIGKILL. Zero: 10.
	StopTimeout int
	// Userns is the user namespace of containers that name none: host, or auto
	// for ids of their own. Zero: host.
	Userns string
	// UsernsIDs are the ids containers get of, FIRST:COUNT. Zero: those of berth
	// in /etc/subuid and /etc/subgid, or 0x70000000 and up.
	UsernsIDs string
	// CDISpecDirs are the directories with CDI specifications, the later ones
	// before the earlier. Zero: /etc/cdi and /var/run/cdi.
	CDISpecDirs []string
	// Init gives containers that do not say otherwise an init.
	Init bool
	// Labels are reported by Info.
	Labels []string
	// Version, Commit and BuildTime describe the build; reported by Version.
	Version, Commit, BuildTime string
	// Observe is told of operations. Zero: nobody is.
	Observe Observe
	// Logger takes the engine's own log. Zero: discard.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.StateRoot = firstNonEmpty(c.StateRoot, "/var/lib/berth")
	c.RunRoot = firstNonEmpty(c.RunRoot, "/run/berth")
	c.BridgeName = firstNonEmpty(c.BridgeName, "berth0")
	c.CgroupParent = firstNonEmpty(c.CgroupParent, "/berth")
	c.LogDriver = firstNonEmpty(c.LogDriver, logJSONFile)
	if c.DefaultShmSize == 0 {
		c.DefaultShmSize = 64 << 20
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = 10
	}
	c.Userns = firstNonEmpty(c.Userns, usernsHost)
	if c.CDISpecDirs == nil {
		c.CDISpecDirs = cdiDirs
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Engine joins the parts. Make one with [Open].
type Engine struct {
	cfg  Config
	log  *slog.Logger
	host *hostFacts
	id   string // of this installation, 64 hex digits

	images     *image.Store
	volumes    *volume.Store
	nets       *network.Store
	keeper     *keeperLink
	logWatch   *logWatch
	oom        oomWatch
	appArmor   appArmor
	cdi        cdiRegistry
	ids        idRanges
	networkIDs map[string]string // by name
	labels     atomic.Pointer[[]string]
	events     *eventLog
	containers *roster
	execs      *execIndex

	// reconciled is closed when what belongs to no container has been removed: what is
	// started before that could be taken for it.
	reconciled chan struct{}
	// beside are the goroutines that do what this engine did not wait for when it began.
	beside     sync.WaitGroup
	closeGrace time.Duration

	// ctx ends with Close; wg counts the goroutines that end with it.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Open opens the parts, connects to the keeper (and starts one when none
// answers), loads the container records and brings them in line with what the
// keeper and the kernel say. Containers whose restart policy wants it are
// started in the background.
func Open(ctx context.Context, cfg Config) (_ *Engine, err error) {
	e := &Engine{
		cfg: cfg.withDefaults(), events: newEventLog(), containers: newRoster(),
		execs: &execIndex{byID: map[string]*ctr{}}, reconciled: make(chan struct{}),
		closeGrace: closeGrace,
	}
	e.log, e.cdi = e.cfg.Logger, cdiRegistry{e.cfg.CDISpecDirs}
	e.ids.configured = e.cfg.UsernsIDs
	e.labels.Store(&e.cfg.Labels)
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if err := e.openParts(ctx); err != nil {
		return nil, err
	}
	if err := e.loadContainers(); err != nil {
		return nil, err
	}
	if err := e.adoptVolumes(); err != nil {
		return nil, fmt.Errorf("reconcile volumes: %w", err)
	}
	if err := e.reconcile(ctx); err != nil {
		return nil, fmt.Errorf("reconcile containers: %w", err)
	}
	e.wg.Go(e.watchExits)
	e.wg.Go(e.compressLogs)
	if e.oom.w != nil {
		e.wg.Go(e.watchOOM)
	}
	return e, nil
}

// openParts opens what the engine joins, each before what needs it.
func (e *Engine) openParts(ctx context.Context) (err error) {
	for _, dir := range []string{e.cfg.StateRoot, e.containersDir(), e.volumesDir(), e.cfg.RunRoot} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make engine directories: %w", err)
		}
	}
	if err := migrate(&e.cfg); err != nil {
		return err
	}
	if e.host, err = probeHost(); err != nil {
		return fmt.Errorf("probe host: %w", err)
	}
	if e.id, err = loadID(filepath.Join(e.cfg.StateRoot, "engine-id")); err != nil {
		return fmt.Errorf("read engine id: %w", err)
	}
	e.events.store, err = openEventStore(filepath.Join(e.cfg.StateRoot, eventsFile), func(err error) {
		e.log.Error("events are not kept", "err", err)
	})
	if err != nil {
		return err
	}
	e.images, err = image.Open(ctx, image.Options{
		Root: filepath.Join(e.cfg.StateRoot, "image"), InsecureRegistries: e.cfg.InsecureRegistries,
		RegistryDirs: e.cfg.RegistryDirs,
		Users:        e.imageUsers, Log: e.log, MaxLayerSize: e.cfg.MaxLayerSize, MaxLayerFiles: e.cfg.MaxLayerFiles,
		Snapshotter: e.cfg.Snapshotter,
	})
	if err != nil {
		return err
	}
	if err := e.checkStorageDefault(); err != nil {
		return err
	}
	if e.volumes, err = volume.Open(volume.Options{Root: e.volumesDir(), Log: e.log}); err != nil {
		return err
	}
	if e.nets, err = e.openNetworks(ctx); err != nil {
		return err
	}
	e.networkIDs = map[string]string{}
	for _, n := range e.nets.List() {
		e.networkIDs[n.Name] = n.ID
	}
	if e.logWatch, err = newLogWatch(); err != nil {
		return err
	}
	if e.oom, err = newOOMWatch(); err != nil {
		return err
	}
	e.keeper = newKeeperLink(keeper.ConnectOptions{Root: e.cfg.RunRoot, Binary: findBinary(e.cfg.BerthOCI)})
	if err := e.meetKeeper(ctx); err != nil {
		return err
	}
	return e.considerUpgrade(ctx)
}

func (e *Engine) openNetworks(ctx context.Context) (*network.Store, error) {
	opts := e.cfg.networkOptions()
	if s := e.cfg.BridgeSubnet; s != "" {
		subnet, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, invalidf("bridge subnet: %w", err)
		}
		opts.Subnet = subnet
	}
	return network.Open(ctx, opts)
}

// networkOptions is where the network part keeps its things.
func (c Config) networkOptions() network.Options {
	return network.Options{
		StateDir: filepath.Join(c.StateRoot, "network"), RunDir: filepath.Join(c.RunRoot, "network"),
		NetnsDir: filepath.Join(c.RunRoot, "netns"), BridgeLink: c.BridgeName, Logger: c.Logger,
	}
}

// netnsPath is where the network part pins a container's namespace.
func (e *Engine) netnsPath(id string) string { return filepath.Join(e.cfg.RunRoot, "netns", id) }

// loadID reads this installation's id, or makes one.
func loadID(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil && len(data) > 0 {
		return string(data), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	id := newID()
	return id, writeFileAtomic(path, []byte(id), 0o644)
}

// Close stops the engine's goroutines and closes what Open opened. Containers
// run on; the next Open finds them. Requests still under way may fail.
func (e *Engine) Close() error {
	e.cancel()
	e.events.close()
	errs := []error{e.oom.close()} // which ends who waits
	e.wg.Wait()
	if e.keeper != nil {
		errs = append(errs, e.keeper.close())
	}
	if e.logWatch != nil {
		e.logWatch.close()
	}
	if e.nets != nil {
		errs = append(errs, e.nets.Close())
	}
	if e.volumes != nil {
		errs = append(errs, e.volumes.Close())
	}
	if e.images != nil {
		errs = append(errs, e.images.Close())
	}
	return errors.Join(errs...)
}
