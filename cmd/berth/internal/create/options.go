// Package create turns the flags of berth run and berth create into the
// request that makes a container. Names, syntax and meaning of the flags are
// the docker command's; a flag whose feature an engine lacks is passed on, so
// that the engine says so.
package create

import (
	"os"
	"time"

	"github.com/spf13/pflag"
)

// Options are the flags that describe a container.
type Options struct {
	// LookupEnv resolves -e NAME; nil means os.LookupEnv.
	LookupEnv func(name string) (string, bool)

	flags *pflag.FlagSet

	// CIDFile is where the container's id is written; empty for nowhere.
	CIDFile string
	// Remove has the container removed when it ends.
	Remove bool

	// process
	attach                         list
	env, envFile                   list
	labels, labelFile              list
	groupAdd                       list
	annotations, sysctls           mapping
	ulimits                        ulimits
	entrypoint, user, workdir      string
	hostname, domainname           string
	stdin, tty, init               bool
	stopSignal, restart            string
	stopTimeout                    int
	readOnly                       bool
	healthCmd                      string
	healthInterval, healthTimeout  time.Duration
	healthStart, healthStartEvery  time.Duration
	healthRetries                  int
	noHealthcheck                  bool
	runtime, cgroupParent          string
	isolation                      string
	ipc, pid, uts, userns, cgroups string

	// security
	capAdd, capDrop, securityOpt list
	privileged                   bool

	// network
	networks                        networks
	addHost, dns, dnsOpt, dnsSearch list
	publish, expose                 list
	links, aliases, linkLocal       list
	ip, ip6, mac                    string
	publishAll                      bool

	// storage and logs
	volumes, volumesFrom, tmpfs list
	mounts                      mounts
	storageOpt, logOpt          list
	logDriver, volumeDriver     string
	shmSize                     byteSize
	devices, deviceRules        list
	gpus                        gpus

	// limits
	memory, memoryReservation     byteSize
	memorySwap                    swapSize
	swappiness, pidsLimit         int64
	oomKillDisable                bool
	oomScoreAdj                   int
	cpus                          nanoCPUs
	cpuShares, cpuPeriod          int64
	cpuQuota, rtPeriod, rtRuntime int64
	cpusetCPUs, cpusetMems        string
	blkioWeight                   uint16
	blkioDevices                  weights
	readBps, writeBps             rates
	readIOps, writeIOps           rates
}

// Warnings tell of flags that have no effect.
func (o *Options) Warnings() []string {
	if o.flags.Changed("kernel-memory") {
		return []string{"--kernel-memory has no effect: Linux has no separate limit of kernel memory since 5.16"}
	}
	return nil
}

// AddFlags adds the flags to a flag set and returns what they set.
func AddFlags(fs *pflag.FlagSet) *Options {
	o := &Options{flags: fs, swappiness: -1, restart: "no"}
	o.readBps.sizes, o.writeBps.sizes = true, true
	o.processFlags(fs)
	o.lifeFlags(fs)
	o.securityFlags(fs)
	o.networkFlags(fs)
	o.storageFlags(fs)
	o.memoryFlags(fs)
	o.cpuFlags(fs)
	o.deviceFlags(fs)
	return o
}

func (o *Options) lookupEnv(name string) (string, bool) {
	if o.LookupEnv != nil {
		return o.LookupEnv(name)
	}
	return os.LookupEnv(name)
}

func (o *Options) processFlags(fs *pflag.FlagSet) {
	fs.VarP(&o.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	fs.VarP(&o.env, "env", "e", "Set environment variables")
	fs.Var(&o.envFile, "env-file", "Read in a file of environment variables")
	fs.StringVar(&o.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	fs.Var(&o.groupAdd, "group-add", "Add additional groups to join")
	fs.BoolVarP(&o.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.StringVarP(&o.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.VarP(&o.labels, "label", "l", "Set meta data on a container")
	fs.Var(&o.labelFile, "label-file", "Read in a line delimited file of labels")
	fs.Var(&o.annotations, "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
	fs.Var(&o.sysctls, "sysctl", "Sysctl options")
	fs.Var(&o.ulimits, "ulimit", "Ulimit options")
	fs.BoolVar(&o.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
}

func (o *Options) lifeFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.Remove, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	fs.StringVar(&o.CIDFile, "cidfile", "", "Write the container ID to the file")
	fs.StringVar(&o.restart, "restart", "no", "Restart policy to apply when a container exits")
	fs.StringVar(&o.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&o.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	fs.StringVar(&o.healthCmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&o.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	fs.DurationVar(&o.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	fs.DurationVar(&o.healthStart, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	fs.DurationVar(&o.healthStartEvery, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	fs.IntVar(&o.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.BoolVar(&o.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
	fs.StringVar(&o.runtime, "runtime", "", "Runtime to use for this container")
	fs.StringVar(&o.isolation, "isolation", "", "Container isolation technology")
}

func (o *Options) securityFlags(fs *pflag.FlagSet) {
	fs.Var(&o.capAdd, "cap-add", "Add Linux capabilities")
	fs.Var(&o.capDrop, "cap-drop", "Drop Linux capabilities")
	fs.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to this container")
	fs.Var(&o.securityOpt, "security-opt", "Security Options")
	fs.StringVar(&o.userns, "userns", "", "User namespace to use (host|auto[:size=N]|container:NAME)")
	fs.StringVar(&o.cgroups, "cgroupns", "", "Cgroup namespace to use (host|private)")
	fs.StringVar(&o.ipc, "ipc", "", "IPC mode to use")
	fs.StringVar(&o.pid, "pid", "", "PID namespace to use")
	fs.StringVar(&o.uts, "uts", "", "UTS namespace to use")
	fs.BoolVar(&o.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
}

func (o *Options) networkFlags(fs *pflag.FlagSet) {
	fs.Var(&o.networks, "network", "Connect a container to a network")
	fs.Var(&o.networks, "net", "Connect a container to a network")
	fs.Var(&o.aliases, "network-alias", "Add network-scoped alias for the container")
	fs.Var(&o.aliases, "net-alias", "Add network-scoped alias for the container")
	fs.StringVarP(&o.hostname, "hostname", "h", "", "Container host name")
	fs.StringVar(&o.domainname, "domainname", "", "Container NIS domain name")
	fs.Var(&o.addHost, "add-host", "Add a custom host-to-IP mapping (host:ip)")
	fs.Var(&o.dns, "dns", "Set custom DNS servers")
	fs.Var(&o.dnsOpt, "dns-option", "Set DNS options")
	fs.Var(&o.dnsOpt, "dns-opt", "Set DNS options")
	fs.Var(&o.dnsSearch, "dns-search", "Set custom DNS search domains")
	fs.VarP(&o.publish, "publish", "p", "Publish a container's port(s) to the host")
	fs.BoolVarP(&o.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.Var(&o.expose, "expose", "Expose a port or a range of ports")
	fs.Var(&o.links, "link", "Add link to another container")
	fs.Var(&o.linkLocal, "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	fs.StringVar(&o.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	fs.StringVar(&o.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	fs.StringVar(&o.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	for _, old := range []string{"net", "net-alias", "dns-opt"} {
		fs.Lookup(old).Hidden = true
	}
}

func (o *Options) storageFlags(fs *pflag.FlagSet) {
	fs.VarP(&o.volumes, "volume", "v", "Bind mount a volume")
	fs.Var(&o.mounts, "mount", "Attach a filesystem mount to the container")
	fs.Var(&o.tmpfs, "tmpfs", "Mount a tmpfs directory")
	fs.Var(&o.volumesFrom, "volumes-from", "Mount volumes from the specified container(s)")
	fs.StringVar(&o.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	fs.Var(&o.storageOpt, "storage-opt", "Storage driver options for the container")
	fs.StringVar(&o.logDriver, "log-driver", "", "Logging driver for the container")
	fs.Var(&o.logOpt, "log-opt", "Log driver options")
	fs.Var(&o.shmSize, "shm-size", "Size of /dev/shm")
}

func (o *Options) memoryFlags(fs *pflag.FlagSet) {
	fs.VarP(&o.memory, "memory", "m", "Memory limit")
	fs.Var(&o.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&o.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&o.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.BoolVar(&o.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&o.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.Int64Var(&o.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.StringVar(&o.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.Var(new(byteSize), "kernel-memory", "Kernel memory limit")
	fs.Lookup("kernel-memory").Hidden = true
}

func (o *Options) cpuFlags(fs *pflag.FlagSet) {
	fs.Var(&o.cpus, "cpus", "Number of CPUs")
	fs.Int64VarP(&o.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Int64Var(&o.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&o.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&o.rtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&o.rtRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.StringVar(&o.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&o.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
}

func (o *Options) deviceFlags(fs *pflag.FlagSet) {
	fs.Var(&o.devices, "device", "Add a host device to the container")
	fs.Var(&o.deviceRules, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	fs.Var(&o.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
	o.blockFlags(fs)
}

// blockFlags are the limits of block devices.
func (o *Options) blockFlags(fs *pflag.FlagSet) {
	fs.Uint16Var(&o.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.Var(&o.blkioDevices, "blkio-weight-device", "Block IO weight (relative device weight)")
	fs.Var(&o.readBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	fs.Var(&o.writeBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	fs.Var(&o.readIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	fs.Var(&o.writeIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
}

// Limits are the flags of berth update: the limits of [Options] that can be
// changed while a container runs.
type Limits struct{ o Options }

// AddLimitFlags adds the flags to a flag set and returns what they set.
func AddLimitFlags(fs *pflag.FlagSet) *Limits {
	l := &Limits{o: Options{swappiness: -1}}
	o := &l.o
	o.readBps.sizes, o.writeBps.sizes = true, true
	o.flags = fs
	fs.VarP(&o.memory, "memory", "m", "Memory limit")
	fs.Var(&o.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&o.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&o.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.Int64Var(&o.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.StringVar(&o.restart, "restart", "", "Restart policy to apply when a container exits")
	o.blockFlags(fs)
	o.cpuFlags(fs)
	return l
}
