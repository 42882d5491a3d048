// Command berth-oci runs OCI containers: it takes the place of runc or crun
// under whatever engine calls one of them, and its "keep" command is the keeper
// of Berth's own engine.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

// app is one invocation: the global options and what commands share.
type app struct {
	root   string
	log    logger
	stdout io.Writer
	// systemd: containers are made in scopes of systemd.
	systemd bool
	criu    string // the program, "" for the one in PATH
}

// command is one of berth-oci's verbs.
type command struct {
	name, args, short string
	// run parses the command's own flags and does the work; code is the
	// process's exit status when err is nil.
	run func(a *app, fs *flag.FlagSet, args []string) (code int, err error)
}

// commands are in the order help shows them.
func commands() []command {
	return []command{
		{"create", "ID", "make a container that waits to be started", runCreate},
		{"start", "ID", "run the command of a created container", runStart},
		{"run", "ID", "create and start a container, and wait for it", runRun},
		{"exec", "ID COMMAND [ARG...]", "run another process in a container", runExec},
		{"state", "ID", "print a container's state as JSON", runState},
		{"kill", "ID [SIGNAL]", "send a signal to a container (default SIGTERM)", runKill},
		{"delete", "ID", "remove a stopped container", runDelete},
		{"list", "", "list containers", runList},
		{"pause", "ID", "freeze all processes of a container", runPause},
		{"resume", "ID", "thaw a paused container", runResume},
		{"update", "ID", "change a container's limits", runUpdate},
		{"events", "ID", "print a container's use of resources and shortages of memory", runEvents},
		{"ps", "ID [PS-OPTION...]", "list the processes of a container", runPs},
		{"checkpoint", "ID", "save a container's processes to files, by CRIU", runCheckpoint},
		{"restore", "ID", "make a container's processes from such files again", runRestore},
		{"spec", "", "write a default config.json", runSpec},
		{"features", "", "print what of the specification is supported, as JSON", runFeatures},
		{"explain", "[BUNDLE]", "print the system calls that build a bundle's container", runExplain},
		{"keep", "", "be the keeper of an engine's containers", runKeep},
	}
}

func main() {
	brief()
	os.Exit(realMain(os.Args[1:]))
}

func realMain(args []string) int {
	a := &app{stdout: os.Stdout}
	fs := newFlags("berth-oci", "[options] COMMAND ...")
	fs.StringVar(&a.root, "root", defaultRoot(), "`directory` of the containers' states")
	fs.StringVar(&a.log.path, "log", "", "`file` to append errors and warnings to (default standard error)")
	fs.StringVar(&a.log.format, "log-format", "text", "text or json")
	fs.BoolVar(&a.log.debug, "debug", false, "log more")
	fs.BoolVar(&a.systemd, "systemd-cgroup", false, "have systemd make the cgroups: linux.cgroupsPath is slice:prefix:name")
	fs.Func("rootless", "true, false or auto: accepted and without effect, as what the caller may do is found out by trying", func(v string) error {
		if v != "true" && v != "false" && v != "auto" {
			return errors.New("true, false or auto")
		}
		return nil
	})
	fs.StringVar(&a.criu, "criu", "", "`program` that makes checkpoints (default: criu in PATH)")
	version := boolFlag(fs, "version", "v", false, "print the version")
	if code, done := parse(fs, args, usage); done {
		return code
	}
	if a.log.path == "/dev/stderr" { // runc's default
		a.log.path = ""
	}
	switch {
	case *version:
		printVersion(a.stdout)
		return 0
	case a.log.format != "text" && a.log.format != "json":
		return a.fail(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("--log-format %q: text or json", a.log.format)))
	case fs.NArg() == 0:
		usage(os.Stderr)
		return 1
	}
	return a.dispatch(fs.Arg(0), fs.Args()[1:])
}

// defaultRoot is where containers' states are: for an ordinary user, and for
// root of a user namespace, which is one, in the directory of their session.
func defaultRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && !oci.IsHostRoot() {
		return filepath.Join(dir, "berth-oci")
	}
	return "/run/berth-oci"
}

func (a *app) dispatch(name string, args []string) int {
	for _, c := range commands() {
		if c.name != name {
			continue
		}
		code, err := c.run(a, newFlags("berth-oci "+c.name, "[options] "+c.args), args)
		if err == errUsage {
			return code
		}
		if err != nil {
			return a.fail(err)
		}
		return code
	}
	if name == "help" {
		usage(a.stdout)
		return 0
	}
	return a.fail(errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("unknown command %q", name)), "berth-oci help lists the commands"))
}

// store is the directory of the containers.
func (a *app) store() *oci.Store {
	return &oci.Store{Root: a.root, Warn: func(msg string) { a.log.write("warning", msg) }}
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: berth-oci [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND [options] ...\n\ncommands:")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %-20s %s\n", c.name, c.args, c.short)
	}
	fmt.Fprintln(w, "\nberth-oci COMMAND --help shows a command's options.")
}
