package cli

import (
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// completeFlags completes the values of flags that mean the same wherever they
// are, except where a command has its own way. It is done when a shell asks,
// not at every start.
func (a *app) completeFlags(cmd *cobra.Command) {
	known := a.flagValues()
	for _, sub := range cmd.Commands() {
		a.completeFlags(sub)
		sub.Flags().VisitAll(func(f *pflag.Flag) {
			if _, own := sub.GetFlagCompletionFunc(f.Name); own {
				return
			}
			if fn := known[f.Name]; fn != nil {
				completeFlag(sub, f.Name, fn)
			} else if f.Name == "filter" {
				completeFlag(sub, f.Name, filterNames(sub))
			}
		})
	}
}

// flagValues are what flags of that name take.
func (a *app) flagValues() map[string]completion {
	joins := func(words ...string) completion { return a.completeJoin(words...) }
	return map[string]completion{
		"format": fixed("json", "table", "'{{json .}}'"), "signal": fixed(signalNames()...), "stop-signal": fixed(signalNames()...),
		"cap-add": fixed(capabilityNames()...), "cap-drop": fixed(capabilityNames()...), "net": a.completeNetworks, "network": a.completeNetworks,
		"restart": fixed("no", "always", "unless-stopped", "on-failure"), "pull": fixed("always", "missing", "never"),
		"pid": joins("host"), "ipc": joins("host", "private", "shareable", "none"), "uts": fixed("host"), "cgroupns": fixed("host", "private"),
		"userns": fixed("host", "auto", "private"), "log-driver": fixed("json-file", "local", "journald", "syslog", "none"),
		"security-opt": fixed("no-new-privileges", "seccomp=unconfined", "apparmor=unconfined", "label=disable", "systempaths=unconfined"),
		"platform":     fixed("linux/amd64", "linux/arm64"), "attach": fixed("stdin", "stdout", "stderr"),
		"ulimit": fixedWith(cobra.ShellCompDirectiveNoSpace, "nofile=", "nproc=", "core=", "memlock=", "stack="),
		"mount":  fixedWith(cobra.ShellCompDirectiveNoSpace, "type=bind,", "type=volume,", "type=tmpfs,"),
	}
}

// fixedWith is fixed with a word to the shell.
func fixedWith(how cobra.ShellCompDirective, values ...string) completion {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, noFiles | how
	}
}

// completeJoin completes words and, after "container:", the names of containers.
func (a *app) completeJoin(words ...string) completion {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if !strings.HasPrefix(typed, "container:") {
			return append(words, "container:"), noFiles | cobra.ShellCompDirectiveNoSpace
		}
		names, how := a.completeContainers(func(s container.ContainerState) bool { return isRunning(s) })(cmd, nil, "")
		for i := range names {
			names[i] = "container:" + names[i]
		}
		return names, how
	}
}

// filterNames are the filters of a list, by whose list it is.
func filterNames(cmd *cobra.Command) completion {
	names := []string{"label=", "until="}
	switch cmd.Name() {
	case "ps":
		names = []string{"ancestor=", "exited=", "health=", "id=", "label=", "name=", "network=", "publish=", "since=", "before=", "status=", "volume="}
	case "images":
		names = []string{"before=", "dangling=", "label=", "reference=", "since=", "until="}
	case "events":
		names = []string{"container=", "event=", "image=", "label=", "network=", "type=", "volume="}
	case "ls":
		names = []string{"driver=", "id=", "label=", "name="}
		if cmd.Parent() != nil && cmd.Parent().Name() == "container" {
			names = []string{"ancestor=", "exited=", "health=", "id=", "label=", "name=", "network=", "status=", "volume="}
		}
	}
	return fixedWith(cobra.ShellCompDirectiveNoSpace, names...)
}

// signalNames are the signals people send.
func signalNames() []string {
	var names []string
	for n := unix.SIGHUP; n <= unix.SIGSYS; n++ {
		if name := unix.SignalName(n); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// capabilityNames are those of capabilities(7).
func capabilityNames() []string {
	return strings.Fields(`ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
		DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN
		NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT
		SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`)
}

// completeObjects completes whatever has a name, of one kind when --type says so.
func (a *app) completeObjects(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	kind, _ := cmd.Flags().GetString("type") // without the flag it is ""
	var names []string
	for _, of := range []struct {
		kind string
		fn   completion
	}{
		{"container", a.completeContainers(anyState)}, {"image", a.completeImages}, {"volume", a.completeVolumes}, {"network", a.completeNetworks},
	} {
		if kind == "" || kind == of.kind {
			some, _ := of.fn(cmd, args, typed)
			names = append(names, some...)
		}
	}
	return without(names, args), noFiles
}
