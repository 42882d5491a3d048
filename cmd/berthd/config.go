package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-containers/berth/engine"
	"github.com/docker/go-units"
	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"
)

// defaultConfigFile is read when it exists; any other file must.
const defaultConfigFile = "/etc/berth/berthd.toml"

// config is the daemon's configuration: the file's keys, which flags of the
// same names override. dist/berthd.toml documents every key with its default;
// a test holds the two together.
type config struct {
	// StateRoot holds what survives a reboot.
	StateRoot string `toml:"state-root"`
	// RunRoot holds sockets, the lock and runtime state.
	RunRoot string `toml:"run-root"`
	// Hosts are the addresses to listen on: unix:///path, or tcp://IP:PORT
	// with a loopback IP. Empty: unix://RUN-ROOT/berth.sock.
	Hosts []string `toml:"hosts"`
	// Group owns the unix sockets. Empty: group berth when it exists, else root.
	Group string `toml:"group"`
	// PidFile, when set, takes the daemon's pid.
	PidFile string `toml:"pidfile"`
	// BerthOCI is the berth-oci binary, which the keeper runs.
	BerthOCI string `toml:"berth-oci"`
	// UpgradeKeeper lets a running keeper become the installed berth-oci.
	UpgradeKeeper bool `toml:"upgrade-keeper"`
	// CgroupParent is the cgroup below which containers live.
	CgroupParent string `toml:"cgroup-parent"`
	// Bridge is the default network's link.
	Bridge string `toml:"bridge"`
	// BridgeSubnet is the default network's subnet, 10.88.0.0/16 say.
	BridgeSubnet string `toml:"bridge-subnet"`
	// InsecureRegistries are spoken to without TLS.
	InsecureRegistries []string `toml:"insecure-registries"`
	// RegistryDirs hold a directory per registry with its hosts.toml or certificates.
	RegistryDirs []string `toml:"registry-dirs"`
	// LogLevel and LogFormat are for the daemon's own log.
	LogLevel  string `toml:"log-level"`
	LogFormat string `toml:"log-format"`
	// DebugSocket serves metrics and profiles to root. Empty:
	// RUN-ROOT/debug.sock; none: no such socket.
	DebugSocket string `toml:"debug-socket"`
	// MetricsAddress, host:port, serves the metrics by TCP. Empty: not.
	MetricsAddress string `toml:"metrics-address"`
	// TraceEndpoint is the URL of an OTLP/HTTP receiver of traces. Empty: what
	// OTEL_EXPORTER_OTLP_ENDPOINT says, else there are none.
	TraceEndpoint string `toml:"trace-endpoint"`
	// StorageOptions are for containers that name none.
	StorageOptions map[string]string `toml:"storage-options"`
	// LogDriver and LogOptions are for containers that name none.
	LogDriver  string            `toml:"log-driver"`
	LogOptions map[string]string `toml:"log-options"`
	// Init gives containers that do not say otherwise an init.
	Init bool `toml:"init"`
	// ShmSize is the size of a container's /dev/shm, such as 64m.
	ShmSize string `toml:"shm-size"`
	// StopTimeout is the grace, in seconds, of a container told to stop.
	StopTimeout int `toml:"stop-timeout"`
	// Userns is the user namespace of containers that name none.
	Userns string `toml:"userns"`
	// UsernsIDs are the host's ids for containers, FIRST:COUNT.
	UsernsIDs string `toml:"userns-ids"`
	// CDISpecDirs are where CDI specifications of devices are.
	CDISpecDirs []string `toml:"cdi-spec-dirs"`
	// Labels are shown by info.
	Labels []string `toml:"labels"`
	// Image is how images are kept; see config_image.go.
	Image imageConfig `toml:"image"`

	// auto: started in the background by berth.
	auto bool
}

// action is what the command line asks for.
type action int

const (
	runDaemon action = iota
	showVersion
	checkOnly
	purgeAll
)

// defaults is the configuration without file and flags.
func defaults() *config {
	return &config{
		StateRoot:   "/var/lib/berth",
		RunRoot:     "/run/berth",
		LogLevel:    "info",
		LogFormat:   "text",
		LogDriver:   "json-file",
		ShmSize:     "64m",
		StopTimeout: 10,
		CDISpecDirs: []string{"/etc/cdi", "/var/run/cdi"},
		Userns:      "host",
		Bridge:      "berth0",
		Image:       imageDefaults(),

		RegistryDirs: []string{"/etc/berth/certs.d", "/etc/docker/certs.d"},
	}
}

// readConfig reads the flags, the file they name and the flags again, on top
// of the file. It returns pflag.ErrHelp after printing the help.
func readConfig(args []string, help io.Writer) (*config, action, error) {
	cfg := defaults()
	first := newFlags(cfg, help)
	if err := first.set.Parse(args); err != nil {
		return nil, 0, err
	}
	if first.set.NArg() > 0 {
		return nil, 0, fmt.Errorf("unexpected argument %q", first.set.Arg(0))
	}
	cfg = defaults()
	if err := readFile(first.file, first.set.Changed("config"), cfg); err != nil {
		return nil, 0, err
	}
	second := newFlags(cfg, io.Discard)
	if err := second.set.Parse(args); err != nil {
		return nil, 0, err
	}
	if len(cfg.Hosts) == 0 {
		cfg.Hosts = []string{"unix://" + filepath.Join(cfg.RunRoot, "berth.sock")}
	}
	return cfg, second.action(), cfg.check()
}

// flags is the command line; its set writes into a config.
type flags struct {
	set            *pflag.FlagSet
	file           string
	version, check bool
	purge          bool
}

func newFlags(cfg *config, help io.Writer) *flags {
	f := &flags{set: pflag.NewFlagSet("berthd", pflag.ContinueOnError)}
	set := f.set
	set.SetOutput(help)
	set.SortFlags = false
	set.Usage = func() {
		fmt.Fprintf(help, "Usage: berthd [flags]\n\nThe Berth engine daemon. Flags override the configuration file.\n\n%s", set.FlagUsages())
	}
	set.StringVar(&f.file, "config", defaultConfigFile, "configuration `file`")
	set.StringArrayVarP(&cfg.Hosts, "host", "H", cfg.Hosts, "`address` to listen on, unix:///path or tcp://127.0.0.1:port (repeatable) (default unix://RUN-ROOT/berth.sock)")
	set.StringVar(&cfg.StateRoot, "state-root", cfg.StateRoot, "`directory` of what survives a reboot")
	set.StringVar(&cfg.RunRoot, "run-root", cfg.RunRoot, "`directory` of sockets and runtime state")
	set.StringVar(&cfg.Group, "group", cfg.Group, "`group` of the unix sockets (default berth when it exists)")
	set.StringVar(&cfg.PidFile, "pidfile", cfg.PidFile, "`file` to write the pid to")
	set.StringVar(&cfg.BerthOCI, "berth-oci", cfg.BerthOCI, "`path` of berth-oci, the keeper's binary (default beside berthd, then $PATH)")
	set.BoolVar(&cfg.UpgradeKeeper, "upgrade-keeper", cfg.UpgradeKeeper, "let a running keeper become the installed berth-oci, when it is another one")
	set.StringVar(&cfg.CgroupParent, "cgroup-parent", cfg.CgroupParent, "`cgroup` below which containers live (default /berth)")
	set.StringVar(&cfg.Bridge, "bridge", cfg.Bridge, "`name` of the default network's bridge")
	set.StringVar(&cfg.BridgeSubnet, "bridge-subnet", cfg.BridgeSubnet, "`subnet` of the default network in CIDR notation")
	set.StringArrayVar(&cfg.InsecureRegistries, "insecure-registry", cfg.InsecureRegistries, "`host[:port]` of a registry without TLS (repeatable)")
	set.StringArrayVar(&cfg.RegistryDirs, "registry-dir", cfg.RegistryDirs, "`directory` with a directory per registry: mirrors (hosts.toml) and certificates (repeatable)")
	set.StringVar(&cfg.Userns, "userns", cfg.Userns, "user namespace of containers that name none: host, auto or auto:size=N")
	set.StringVar(&cfg.UsernsIDs, "userns-ids", cfg.UsernsIDs, "`FIRST:COUNT` of the host's ids for containers")
	set.StringArrayVar(&cfg.CDISpecDirs, "cdi-spec-dir", cfg.CDISpecDirs, "`directory` with CDI specifications of devices (repeatable)")
	set.StringVar(&cfg.LogLevel, "log-level", cfg.LogLevel, "debug, info, warn or error")
	set.StringVar(&cfg.LogFormat, "log-format", cfg.LogFormat, "text or json")
	set.StringVar(&cfg.DebugSocket, "debug-socket", cfg.DebugSocket, "`path` of the socket for metrics and profiles, or none (default RUN-ROOT/debug.sock)")
	set.StringVar(&cfg.MetricsAddress, "metrics-address", cfg.MetricsAddress, "`host:port` to serve metrics at, too")
	set.StringVar(&cfg.TraceEndpoint, "trace-endpoint", cfg.TraceEndpoint, "`URL` of an OTLP/HTTP receiver of traces")
	set.StringVar(&cfg.LogDriver, "log-driver", cfg.LogDriver, "log `driver` of containers that name none: json-file, local, journald, syslog or none")
	set.StringToStringVar(&cfg.LogOptions, "log-opt", cfg.LogOptions, "`option=value` of the log driver (max-size, max-file, tag, ...)")
	set.StringToStringVar(&cfg.StorageOptions, "storage-opt", cfg.StorageOptions, "`option=value` of containers' files: size, what they may take")
	set.BoolVar(&cfg.Init, "init", cfg.Init, "run an init in containers that do not say otherwise")
	set.StringVar(&cfg.ShmSize, "shm-size", cfg.ShmSize, "`size` of a container's /dev/shm")
	set.IntVar(&cfg.StopTimeout, "stop-timeout", cfg.StopTimeout, "`seconds` between a container's stop signal and SIGKILL")
	set.StringArrayVar(&cfg.Labels, "label", cfg.Labels, "`key=value` shown by berth info (repeatable)")
	set.BoolVar(&cfg.auto, "auto", false, "started in the background by berth: it is no error when another daemon serves the run root already")
	set.BoolVar(&f.check, "check", false, "check the configuration and exit")
	set.BoolVar(&f.purge, "purge", false, "end all containers, remove everything Berth has on this host (images and volumes, too) and exit")
	set.BoolVarP(&f.version, "version", "v", false, "show the version and exit")
	return f
}

// action is what the flags ask for.
func (f *flags) action() action {
	switch {
	case f.version:
		return showVersion
	case f.check:
		return checkOnly
	case f.purge:
		return purgeAll
	}
	return runDaemon
}

// readFile reads the file's keys into cfg. A file that does not exist is an
// error only when it was asked for.
func readFile(path string, wanted bool, cfg *config) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !wanted {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	decoder := toml.NewDecoder(strings.NewReader(string(text))).DisallowUnknownFields()
	if err := decoder.Decode(cfg); err != nil {
		return fmt.Errorf("%s: %w", path, tomlError(err))
	}
	return nil
}

// tomlError puts the line into the text of a TOML error.
func tomlError(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		first := unknown.Errors[0]
		line, _ := first.Position()
		return fmt.Errorf("line %d: unknown key %q", line, strings.Join(first.Key(), "."))
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		line, column := wrong.Position()
		return fmt.Errorf("line %d, column %d: %s", line, column, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	return err
}

// check refuses values that no part could use.
func (c *config) check() error {
	for name, path := range map[string]string{"state-root": c.StateRoot, "run-root": c.RunRoot} {
		if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
			return fmt.Errorf("%s %q: not an absolute path below /", name, path)
		}
	}
	for _, host := range c.Hosts {
		if _, _, err := splitHost(host); err != nil {
			return err
		}
	}
	if err := new(slog.LevelVar).UnmarshalText([]byte(c.LogLevel)); err != nil {
		return fmt.Errorf("log-level %q: want debug, info, warn or error", c.LogLevel)
	}
	if !slices.Contains([]string{"text", "json"}, c.LogFormat) {
		return fmt.Errorf("log-format %q: want text or json", c.LogFormat)
	}
	if err := engine.CheckLog(c.LogDriver, c.LogOptions); err != nil {
		return fmt.Errorf("log-driver %s: %w", c.LogDriver, err)
	}
	if err := engine.CheckStorage(c.StorageOptions); err != nil {
		return err
	}
	if c.BridgeSubnet != "" {
		if _, err := netip.ParsePrefix(c.BridgeSubnet); err != nil {
			return fmt.Errorf("bridge-subnet %q: not a subnet in CIDR notation", c.BridgeSubnet)
		}
	}
	if _, err := units.RAMInBytes(c.ShmSize); err != nil {
		return fmt.Errorf("shm-size: %w", err)
	}
	if c.MetricsAddress != "" {
		if _, _, err := net.SplitHostPort(c.MetricsAddress); err != nil {
			return fmt.Errorf("metrics-address %q: want host:port", c.MetricsAddress)
		}
	}
	if c.TraceEndpoint != "" {
		if u, err := url.Parse(c.TraceEndpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("trace-endpoint %q: want a URL such as http://127.0.0.1:4318/v1/traces", c.TraceEndpoint)
		}
	}
	if c.DebugSocket != "" && c.DebugSocket != "none" && !filepath.IsAbs(c.DebugSocket) {
		return fmt.Errorf("debug-socket %q: want an absolute path, or none", c.DebugSocket)
	}
	if err := engine.CheckUserns(c.Userns, c.UsernsIDs); err != nil {
		return err
	}
	if c.StopTimeout < 0 {
		return fmt.Errorf("stop-timeout %d: want seconds, 0 or more", c.StopTimeout)
	}
	return c.Image.check()
}

// debugSocket is where metrics and profiles are served; empty for nowhere.
func (c *config) debugSocket() string {
	switch c.DebugSocket {
	case "":
		return filepath.Join(c.RunRoot, "debug.sock")
	case "none":
		return ""
	}
	return c.DebugSocket
}

// engine is the part of the configuration that is the engine's.
func (c *config) engine(version, commit, built string, logger *slog.Logger) engine.Config {
	shm, _ := units.RAMInBytes(c.ShmSize) // check has parsed it before
	layerSize, _ := units.RAMInBytes(c.Image.MaxLayerSize)
	return engine.Config{
		StateRoot:          c.StateRoot,
		RunRoot:            c.RunRoot,
		BerthOCI:           c.BerthOCI,
		BridgeName:         c.Bridge,
		BridgeSubnet:       c.BridgeSubnet,
		UpgradeKeeper:      c.UpgradeKeeper,
		CgroupParent:       c.CgroupParent,
		InsecureRegistries: c.InsecureRegistries,
		MaxLayerSize:       layerSize,
		MaxLayerFiles:      c.Image.MaxLayerFiles,
		Snapshotter:        c.Image.Snapshotter,
		RegistryDirs:       c.RegistryDirs,
		LogDriver:          c.LogDriver,
		LogOptions:         c.LogOptions,
		StorageOptions:     c.StorageOptions,
		Init:               c.Init,
		DefaultShmSize:     shm,
		StopTimeout:        c.StopTimeout,
		Userns:             c.Userns,
		UsernsIDs:          c.UsernsIDs,
		CDISpecDirs:        c.CDISpecDirs,
		Labels:             c.Labels,
		Version:            version,
		Commit:             commit,
		BuildTime:          built,
		Logger:             logger,
	}
}
