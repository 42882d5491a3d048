package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

type execFlags struct {
	launchFlags
	process, cwd, user  string
	apparmor, label     string
	env, gids, caps     list
	cgroup              list
	tty, detach         *bool
	noNewPrivs, ignoreP bool
}

func (e *execFlags) define(fs *flag.FlagSet) {
	fs.StringVar(&e.consoleSocket, "console-socket", "", "unix `socket` that receives the terminal's master")
	fs.StringVar(&e.pidFile, "pid-file", "", "`file` to write the process's id to")
	fs.StringVar(&e.pidfdSocket, "pidfd-socket", "", "unix `socket` that receives a descriptor of the process")
	fs.IntVar(&e.preserveFDs, "preserve-fds", 0, "pass `N` descriptors to the process, from 3 on, behind those of $LISTEN_FDS")
	fs.StringVar(&e.process, "process", "", "`file` with the process description (JSON)")
	fs.StringVar(&e.process, "p", "", "same as --process")
	fs.StringVar(&e.cwd, "cwd", "", "working `directory`")
	fs.StringVar(&e.user, "user", "", "`UID[:GID]`")
	fs.StringVar(&e.user, "u", "", "same as --user")
	fs.Var(&e.env, "env", "`NAME=value`, several times")
	fs.Var(&e.env, "e", "same as --env")
	fs.Var(&e.gids, "additional-gids", "supplementary `group`, several times")
	fs.Var(&e.gids, "g", "same as --additional-gids")
	fs.Var(&e.caps, "cap", "additional `capability`, several times")
	fs.Var(&e.caps, "c", "same as --cap")
	fs.StringVar(&e.apparmor, "apparmor", "", "AppArmor `profile`")
	fs.StringVar(&e.label, "process-label", "", "SELinux `label`")
	e.tty = boolFlag(fs, "tty", "t", false, "with a terminal")
	e.detach = boolFlag(fs, "detach", "d", false, "do not wait for the process")
	fs.BoolVar(&e.noNewPrivs, "no-new-privs", false, "set no_new_privs")
	fs.Var(&e.cgroup, "cgroup", "start in a `cgroup` below the container's: PATH, on cgroup v1 CONTROLLER[,...]:PATH, several times")
	fs.BoolVar(&e.ignoreP, "ignore-paused", false, "start in a paused container too")
}

func runExec(a *app, fs *flag.FlagSet, args []string) (int, error) {
	var e execFlags
	e.define(fs)
	id, code, err := parseID(fs, args, anyNumber)
	if err != nil {
		return code, err
	}
	caught, err := catchSignals(*e.detach)
	if err != nil {
		return 1, err
	}
	pr, err := a.exec(id, &e, fs.Args()[1:])
	if err != nil {
		return exitCode(err), err
	}
	defer pr.Close()
	if err := e.handOver(pr, *e.detach); err != nil {
		_ = pr.Signal(9)
		_, _ = pr.Wait()
		return 1, err
	}
	if *e.detach {
		return 0, nil
	}
	return foreground(pr, caught, &notification{})
}

// exec starts the process.
func (a *app) exec(id string, e *execFlags, args []string) (*oci.Process, error) {
	// Before we open any: ours must not be taken for the caller's.
	listen := listenFDs()
	extra, err := extraFiles(e.preserveFDs + listen)
	if err != nil {
		return nil, err
	}
	c, err := a.store().Open(id)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	spec, err := c.Spec()
	if err != nil {
		return nil, err
	}
	process, err := e.describe(spec.Process, args)
	if err != nil {
		return nil, err
	}
	process.Env = passListenFDs(process.Env, listen)
	if err := e.checkConsole(process.Terminal, *e.detach); err != nil {
		return nil, err
	}
	r, err := newRunner()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return c.Exec(r, spec, process, oci.ExecOptions{
		Stdio:        oci.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr},
		ExtraFiles:   extra,
		Cgroup:       e.cgroup,
		IgnorePaused: e.ignoreP,
	})
}

// describe is the process: a file's, or the container's own with other
// arguments.
func (e *execFlags) describe(own *specs.Process, args []string) (*specs.Process, error) {
	if e.process != "" {
		if len(args) > 0 {
			return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("exec: a command together with --process"))
		}
		b, err := os.ReadFile(e.process)
		if err != nil {
			return nil, err
		}
		pr, err := oci.ParseProcess(b)
		if err != nil {
			return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s: %w", e.process, err))
		}
		return pr, nil
	}
	if len(args) == 0 {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("exec: no command"))
	}
	pr := *own
	pr.Args = args
	pr.Terminal = *e.tty
	pr.ConsoleSize = nil
	pr.Env = append(append([]string{}, own.Env...), e.env...)
	pr.NoNewPrivileges = own.NoNewPrivileges || e.noNewPrivs
	if e.cwd != "" {
		pr.Cwd = e.cwd
	}
	if e.apparmor != "" {
		pr.ApparmorProfile = e.apparmor
	}
	if e.label != "" {
		pr.SelinuxLabel = e.label
	}
	addCapabilities(&pr, e.caps)
	return &pr, e.setUser(&pr)
}

func (e *execFlags) setUser(pr *specs.Process) error {
	if e.user != "" {
		uid, gid, both := strings.Cut(e.user, ":")
		u, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("--user %q: UID or UID:GID, numbers", e.user))
		}
		g := uint64(pr.User.GID)
		if both {
			if g, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("--user %q: UID or UID:GID, numbers", e.user))
			}
		}
		pr.User.UID, pr.User.GID = uint32(u), uint32(g)
	}
	for _, s := range e.gids {
		g, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("--additional-gids %q: not a number", s))
		}
		pr.User.AdditionalGids = append(pr.User.AdditionalGids, uint32(g))
	}
	return nil
}

// addCapabilities adds names to the sets as runc does: to the ambient one only
// where the container has inheritable capabilities, without which it would have
// no effect.
func addCapabilities(pr *specs.Process, names []string) {
	if len(names) == 0 {
		return
	}
	c := specs.LinuxCapabilities{}
	if pr.Capabilities != nil {
		c = *pr.Capabilities
	}
	sets := []*[]string{&c.Bounding, &c.Effective, &c.Permitted}
	if c.Inheritable != nil {
		sets = append(sets, &c.Ambient)
	}
	for _, set := range sets {
		*set = append(append([]string{}, *set...), names...)
	}
	pr.Capabilities = &c
}
