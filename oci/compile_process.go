package oci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/caps"
	p "github.com/berth-containers/berth/kernel/program"
)

// execStep begins the names of the steps that run the command.
const execStep = "execute "

// process compiles the last part, the same for init and exec: from "inside the
// container with every right" to the command with only its own.
func (c *compiler) process(pr *specs.Process) error {
	c.resetSignals()
	c.memoryPolicy()
	c.personality()
	c.limits(pr)
	c.ownStdio(pr)
	sync, fifo := c.keepDescriptors()
	drop, err := c.capabilities(pr)
	if err != nil {
		return err
	}
	level, err := c.landlockLevel(pr, drop)
	if err != nil {
		return err
	}
	var rules p.Arg
	if level != landlockOff {
		drop.keepAdmin = drop.keepAdmin || !pr.NoNewPrivileges
		if rules, err = c.landlockRules(level); err != nil {
			return err
		}
	}
	drop.bounding(c)
	c.schedule(pr) // late, or an idle policy would slow the set-up down
	c.user(pr)
	c.workingDirectory(pr.Cwd)
	umask := 0o022
	if pr.User.Umask != nil {
		umask = int(*pr.User.Umask & 0o777)
	}
	c.Call("set umask", p.Umask, p.Flag(uint64(umask), fmt.Sprintf("%#o", umask)))
	drop.rest(c)
	if pr.NoNewPrivileges {
		c.Call("set no_new_privs", p.Prctl, p.Flag(unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"), p.Int(1), p.Int(0), p.Int(0), p.Int(0))
	}
	if level != landlockOff {
		c.landlockRestrict(rules)
	}
	c.forkConfined(pr)
	c.prepareInit()
	filter, err := c.filter()
	if err != nil {
		return err
	}
	if fifo != (p.Arg{}) {
		c.findCommand(pr)
	}
	if filter != nil && filter.Notify {
		// Now, while there is somebody to take the listener.
		if err := c.loadListening(filter, sync); err != nil {
			return err
		}
	}
	if fifo != (p.Arg{}) {
		c.awaitStart(sync, fifo)
	}
	if filter != nil && !filter.Notify {
		c.loadFilter(filter)
	}
	c.execute(pr)
	return nil
}

// resetSignals lets the command take every signal: those the caller blocks or
// ignores, because of a shell's background job or the C library's posix_spawn,
// would stay so across execve. So would the precision of the timers of the thread
// that made the process.
func (c *compiler) resetSignals() {
	if slack := c.in.host.timerSlack; slack != 0 {
		c.Call("reset timers", p.Prctl, p.Flag(unix.PR_SET_TIMERSLACK, "PR_SET_TIMERSLACK"), p.Int(slack))
	}
	c.Call("reset signals", p.RtSigprocmask, p.Flag(unix.SIG_SETMASK, "SIG_SETMASK"), c.Data(make([]byte, 8), "none"), p.Null, p.Int(8))
	for _, n := range c.in.host.ignored {
		c.Call("reset signals", p.RtSigaction, p.Int(n), c.Data(make([]byte, 32), "SIG_DFL"), p.Null, p.Int(8))
	}
}

// personality sets the execution domain: LINUX32 makes uname say i686.
func (c *compiler) personality() {
	if d := c.spec.Linux.Personality; d != nil {
		domain := uint64(0) // PER_LINUX
		if d.Domain == specs.PerLinux32 {
			domain = 8 // PER_LINUX32 (linux/personality.h)
		}
		c.Call("set personality", p.Personality, p.Flag(domain, string(d.Domain)))
	}
}

// limits sets the resource limits, as far as the caller may raise them.
func (c *compiler) limits(pr *specs.Process) {
	for i := range pr.Rlimits {
		r := &pr.Rlimits[i]
		n, _ := rlimitNumber(r.Type)
		have := c.in.host.hardLimit(n)
		soft, hard := c.allowed(r)
		if hard < r.Hard {
			c.warn("%s: only CAP_SYS_RESOURCE may raise the hard limit from %d to %d; it is kept", r.Type, have, r.Hard)
		}
		if c.confinedFork && r.Type == limitOfProcesses { // forkConfined lowers it
			soft, hard = max(hard, have), max(hard, have)
		}
		c.limit(r.Type, soft, hard)
	}
}

const limitOfProcesses = "RLIMIT_NPROC"

// allowed is a limit as far as the caller may raise it.
func (c *compiler) allowed(r *specs.POSIXRlimit) (soft, hard uint64) {
	n, _ := rlimitNumber(r.Type)
	if have := c.in.host.hardLimit(n); r.Hard > have && !c.in.host.raises() {
		return min(r.Soft, have), have
	}
	return r.Soft, r.Hard
}

func (c *compiler) limit(name string, soft, hard uint64) {
	n, _ := rlimitNumber(name)
	b := make([]byte, 16)
	binary.LittleEndian.PutUint64(b, soft)
	binary.LittleEndian.PutUint64(b[8:], hard)
	c.Call("limit "+name, p.Prlimit, p.Int(0), p.Flag(uint64(n), name), c.Data(b, "limit"), p.Null)
}

// ownStdio gives the standard streams to the user, so that it may reopen them
// by /dev/stdout. Streams that cannot be given (closed, read-only, somebody
// else's device) stay as they are.
func (c *compiler) ownStdio(pr *specs.Process) {
	if pr.User.UID == 0 {
		return
	}
	for fd := range 3 {
		if c.in.hostNull[fd] && !pr.Terminal {
			continue // it would be the host's /dev/null that changes hands
		}
		c.Call("give stdio to the user", p.Fchown, p.Int(fd), p.Int(int(pr.User.UID)), p.Int(-1)).TolerateAll()
	}
}

// keepDescriptors closes everything but the standard streams, the extra files
// (moved down to 3 and up) and, until the exec, the sync socket and the start
// fifo behind them.
func (c *compiler) keepDescriptors() (sync, fifo p.Arg) {
	const step = "close other descriptors"
	n := len(c.in.extra)
	at := fdExtra + n // beyond the place the extra files come from
	last := at
	sync = p.Fd(at, "<sync>")
	cloexec := p.Flag(unix.O_CLOEXEC, "O_CLOEXEC")
	if c.in.wait != nil {
		// Read first: its place may be the one the socket moves to.
		last = at + 1
		fifo = p.Fd(last, "<start>")
		c.Call(step, p.Dup3, c.inherit(*c.in.wait), fifo, cloexec).Tolerate(unix.EINVAL) // it is there already
		c.Call(step, p.Fcntl, fifo, p.Flag(unix.F_SETFD, "F_SETFD"), p.Flag(unix.FD_CLOEXEC, "FD_CLOEXEC"))
	}
	if c.in.init != nil {
		last++
		c.initFile = p.Fd(last, "<init>")
		c.Call(step, p.Dup3, c.inherit(inherited{name: "init", file: c.in.init}), c.initFile, cloexec).Tolerate(unix.EINVAL)
		c.Call(step, p.Fcntl, c.initFile, p.Flag(unix.F_SETFD, "F_SETFD"), p.Flag(unix.FD_CLOEXEC, "FD_CLOEXEC"))
	}
	c.Call(step, p.Dup3, p.Fd(fdSync, "<sync>"), sync, cloexec)
	for i := range n {
		c.Call(step, p.Dup3, p.Int(fdExtra+i), p.Int(3+i), p.Int(0))
	}
	c.Call(step, p.CloseRange, p.Int(3+n), p.Int(at-1), p.Int(0))
	c.Call(step, p.CloseRange, p.Int(last+1), p.Flag(0xffffffff, "~0"), p.Int(0))
	return sync, fifo
}

// capSets are the capability sets of the command.
type capSets struct {
	caps.Sets
	keepAdmin bool // CAP_SYS_ADMIN stays until the exec, for seccomp and Landlock
}

// capabilities reads the sets. Those the caller does not hold cannot be given;
// a new user namespace gives them all.
func (c *compiler) capabilities(pr *specs.Process) (*capSets, error) {
	named := pr.Capabilities
	if named == nil { // none named is none given, as with runc and crun
		named = &specs.LinuxCapabilities{}
	}
	sets, err := caps.Parse(named)
	var unknown *caps.UnknownError
	if errors.As(err, &unknown) {
		c.warn("process.capabilities: %v", err) // as the specification wants
	} else if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	if !c.newUser {
		var dropped caps.Sets
		if sets, dropped = sets.Clamp(c.in.host.caps); dropped.Union() != 0 {
			c.warn("process.capabilities: %s: the caller itself lacks them", dropped.Union())
		}
	}
	// The kernel gives an ambient capability only to who has it inheritable
	// and permitted (capabilities(7)).
	sets.Ambient &= sets.Inheritable & sets.Permitted
	sets.Effective &= sets.Permitted
	return &capSets{Sets: sets, keepAdmin: c.spec.Linux.Seccomp != nil && !pr.NoNewPrivileges}, nil
}

// bounding drops from the bounding set everything the command may never have.
func (s *capSets) bounding(c *compiler) {
	const step = "limit capabilities"
	for n := range c.in.host.lastCap + 1 {
		if !s.Bounding.Has(n) {
			c.Call(step, p.Prctl, p.Flag(unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP"), p.Flag(uint64(n), n.String()))
		}
	}
	c.Call(step, p.Prctl, p.Flag(unix.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS"), p.Int(1))
}

// rest sets the other sets. For the last calls before the exec CAP_SYS_ADMIN
// may stay: execve computes the command's sets from the inheritable, ambient
// and bounding ones alone and takes it away again (capabilities(7)).
func (s *capSets) rest(c *compiler) {
	const step = "set capabilities"
	sets := s.Sets
	if s.keepAdmin {
		sets.Effective |= 1 << unix.CAP_SYS_ADMIN
		sets.Permitted |= 1 << unix.CAP_SYS_ADMIN
	}
	header := make([]byte, 8)
	binary.LittleEndian.PutUint32(header, unix.LINUX_CAPABILITY_VERSION_3)
	data := make([]byte, 0, 24)
	for _, d := range sets.UserData() {
		data = binary.LittleEndian.AppendUint32(data, d.Effective)
		data = binary.LittleEndian.AppendUint32(data, d.Permitted)
		data = binary.LittleEndian.AppendUint32(data, d.Inheritable)
	}
	c.Call(step, p.Prctl, p.Flag(unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT"), p.Flag(unix.PR_CAP_AMBIENT_CLEAR_ALL, "CLEAR_ALL"), p.Int(0), p.Int(0), p.Int(0))
	c.Call(step, p.Capset, c.Data(header, "version 3"), c.Data(data, sets.Permitted.String()))
	for n := range caps.Cap(64) {
		if sets.Ambient.Has(n) {
			c.Call(step, p.Prctl, p.Flag(unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT"), p.Flag(unix.PR_CAP_AMBIENT_RAISE, "RAISE"),
				p.Flag(uint64(n), n.String()), p.Int(0), p.Int(0))
		}
	}
}

// user takes on the command's ids.
func (c *compiler) user(pr *specs.Process) {
	const step = "become the user"
	u := pr.User
	groups := make([]byte, 4*len(u.AdditionalGids))
	for i, g := range u.AdditionalGids {
		binary.LittleEndian.PutUint32(groups[4*i:], g)
	}
	list := p.Null
	if len(groups) > 0 {
		list = c.Data(groups, "groups")
	}
	set := c.Call(step, p.Setgroups, p.Int(len(u.AdditionalGids)), list)
	if c.newUser && len(groups) == 0 {
		set.Tolerate(unix.EPERM) // user_namespaces(7): setgroups may be denied there
	}
	gid, uid := p.Int(int(u.GID)), p.Int(int(u.UID))
	c.Call(step, p.Setresgid, gid, gid, gid)
	c.Call(step, p.Setresuid, uid, uid, uid)
}

// workingDirectory enters the command's directory, as the user: it must be one
// the user may enter. A stream or an extra file may be a directory of the host,
// and /proc/self/fd/N would lead there (CVE-2024-21626): no such link is
// followed, so that what is entered is inside the root.
func (c *compiler) workingDirectory(cwd string) {
	step := "change to " + cwd
	if path.Clean(cwd) == "/" {
		c.Call(step, p.Chdir, c.Str("/"))
		return
	}
	dir := c.Slot("cwd")
	c.open(step, atCwd, cwd, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_MAGICLINKS).Store(dir)
	c.Call(step, p.Fchdir, dir)
}

// findCommand makes sure that there is a command before the container counts as
// created.
func (c *compiler) findCommand(pr *specs.Process) {
	found := c.NewLabel()
	names := candidates(pr)
	for _, name := range names {
		c.Call(execStep+name, p.Faccessat, atCwd, c.Str(name), p.Flag(unix.X_OK, "X_OK")).
			Then(found).Tolerate(unix.ENOENT, unix.ENOTDIR, unix.EACCES)
	}
	for i, name := range names {
		op := c.Call(execStep+name, p.Faccessat, atCwd, c.Str(name), p.Flag(unix.X_OK, "X_OK"))
		if i < len(names)-1 {
			op.Tolerate(unix.ENOENT, unix.ENOTDIR)
		}
	}
	c.Mark(found)
}

// awaitStart tells the parent that all is set up, then waits for one byte.
func (c *compiler) awaitStart(sync, fifo p.Arg) {
	c.Call("tell the parent", p.Write, sync, c.Str(msgReady), p.Int(1))
	c.Call("tell the parent", p.Close, sync)
	c.Call(waitStep, p.Read, fifo, c.Data(make([]byte, 8), "byte"), p.Int(1))
	c.plan.waits = true
}

// waitStep is where a created container stands until it is started.
const waitStep = "wait for start"

// execute runs the command: by its path, or the first executable of that name
// in PATH, as execvp does. What cannot be executed is remembered against what
// is not there: the second round reports it.
func (c *compiler) execute(pr *specs.Process) {
	switch {
	case c.in.hook != nil:
		c.executeHook()
	case c.in.init != nil:
		c.executeUnderInit(pr)
	default:
		c.run(c.newCommand(pr), 0)
	}
}

// command is what is executed: its names, in order, and what it is given.
type command struct {
	word      string
	names     []string
	args, env p.Arg
}

func (c *compiler) newCommand(pr *specs.Process) *command {
	return &command{
		word: pr.Args[0], args: c.Strings(pr.Args, "args"),
		env: c.Strings(c.withHome(lastOfEach(pr.Env), pr.User.UID), "env"), names: candidates(pr),
	}
}

// run executes the command. What ends the process elsewhere continues at failed,
// unless that is 0.
func (c *compiler) run(cmd *command, failed p.Label) {
	try := func(step, name string, tolerated ...syscall.Errno) {
		op := c.Call(execStep+step, p.Execve, c.Str(name), cmd.args, cmd.env).Tolerate(tolerated...)
		if failed != 0 {
			op.OnAnyErrno(failed)
		}
	}
	names := cmd.names
	for _, name := range names[:len(names)-1] {
		try(name, name, unix.ENOENT, unix.ENOTDIR, unix.EACCES)
	}
	last := names[len(names)-1]
	if len(names) == 1 {
		try(last, last)
		return
	}
	try(last, last, unix.ENOENT, unix.ENOTDIR, unix.EACCES)
	for _, name := range names[:len(names)-1] {
		try(name, name, unix.ENOENT, unix.ENOTDIR)
	}
	try(cmd.word+" from PATH", last)
}

// lastOfEach drops the variables that a later one of the same name replaces:
// the programs that read the list disagree about which of two counts.
func lastOfEach(env []string) []string {
	last := make(map[string]int, len(env))
	for i, e := range env {
		name, _, _ := strings.Cut(e, "=")
		last[name] = i
	}
	if len(last) == len(env) {
		return env
	}
	out := make([]string, 0, len(last))
	for i, e := range env {
		if name, _, _ := strings.Cut(e, "="); last[name] == i {
			out = append(out, e)
		}
	}
	return out
}

// defaultPath is searched when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// candidates are the paths the command may be at, in order.
func candidates(pr *specs.Process) []string {
	name := pr.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}
	}
	search := defaultPath
	for _, e := range pr.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok && v != "" {
			search = v
		}
	}
	var out []string
	for _, dir := range strings.Split(search, ":") {
		if path.IsAbs(dir) { // "" and relative ones would mean the working directory
			out = append(out, path.Join(dir, name))
		}
	}
	if out == nil {
		out = []string{path.Join("/", name)}
	}
	return out
}
