package oci

import (
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// defaultDevices are in every container (runtime-spec, config-linux.md,
// "Default Devices").
var defaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// devLinks are the symbolic links of every container (same section).
var devLinks = []struct{ name, target string }{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
}

// devices makes the nodes and links of /dev, unless /dev as a whole comes from
// the host, whose nodes are then the container's.
func (c *compiler) devices() error {
	for i := range c.spec.Mounts {
		if m := &c.spec.Mounts[i]; isBind(m) && relative(m.Destination) == "dev" {
			return nil
		}
	}
	all := append([]specs.LinuxDevice{}, defaultDevices...)
	for _, d := range c.spec.Linux.Devices {
		all = mergeDevice(all, d)
	}
	// Nearly all are in one directory, and nothing is mounted between them.
	dev := c.target("open /dev", "/dev", directory, noLinks)
	for i := range all {
		parent, dir := dev, path.Dir(path.Clean(all[i].Path))
		if dir != "/dev" {
			parent = c.target("make "+all[i].Path, dir, directory, noLinks)
		}
		if err := c.device(&all[i], parent); err != nil {
			return err
		}
	}
	for _, l := range devLinks {
		c.Call("link /dev/"+l.name, p.Symlinkat, c.Str(l.target), dev, c.Str(l.name)).Tolerate(unix.EEXIST)
	}
	return nil
}

// mergeDevice replaces a default by the specification's device of the same
// path.
func mergeDevice(all []specs.LinuxDevice, d specs.LinuxDevice) []specs.LinuxDevice {
	for i := range all {
		if all[i].Path == path.Clean(d.Path) {
			all[i] = d
			return all
		}
	}
	return append(all, d)
}

var deviceTypes = map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}

// device makes one node in the directory parent. Where nodes may not be made (user namespaces) or the
// image has something under that name, the host's node is bound over it.
func (c *compiler) device(d *specs.LinuxDevice, parent p.Arg) error {
	kind, ok := deviceTypes[d.Type]
	if !ok {
		return invalid("linux.devices: %s: unknown type %q", d.Path, d.Type)
	}
	step := "make " + d.Path
	base := path.Base(path.Clean(d.Path))
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(d.FileMode.Perm())
	}
	byBind, done := c.NewLabel(), c.NewLabel()
	number := unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	node := c.Call(step, p.Mknodat, parent, c.Str(base), p.Flag(uint64(kind|mode), nodeText(d.Type, mode)), p.Int(int(number)))
	node.OnErrno(unix.EEXIST, byBind).OnErrno(unix.EPERM, byBind)
	if uid, gid := idOf(d.UID), idOf(d.GID); uid != 0 || gid != 0 {
		node = c.Call(step, p.Fchownat, parent, c.Str(base), p.Int(int(uid)), p.Int(int(gid)), p.Flag(unix.AT_SYMLINK_NOFOLLOW, "NOFOLLOW"))
	}
	node.Then(done)
	c.Mark(byBind)
	tree, target := c.Slot("tree"), c.Slot("node")
	c.clone(step, atCwd, path.Clean(d.Path), false, unix.AT_SYMLINK_NOFOLLOW, tree)
	c.Call(step, p.Mknodat, parent, c.Str(base), p.Flag(unix.S_IFREG|0o644, "S_IFREG|0644"), p.Int(0)).Tolerate(unix.EEXIST)
	c.open(step, parent, base, unix.O_PATH|unix.O_NOFOLLOW, noLinks).Store(target)
	c.attach(step, tree, target)
	c.Mark(done)
	return nil
}

func idOf(id *uint32) uint32 {
	if id == nil {
		return 0
	}
	return *id
}

func nodeText(kind string, mode uint32) string {
	return strings.ToUpper(kind) + "|" + os.FileMode(mode).String()
}

// terminal opens a pseudoterminal of the container's own devpts, sends its
// master to the parent and makes the other side the standard streams and
// /dev/console. All by descriptor: the image's names are not looked up again.
func (c *compiler) terminal() {
	if c.spec.Process == nil || !c.spec.Process.Terminal {
		return
	}
	const step = "open terminal"
	master := c.Slot("master")
	c.open(step, c.root, "dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, noLinks).Store(master)
	c.openConsole(step, master, c.spec.Process.ConsoleSize)

	// Only where /dev is the container's own.
	const bindStep = "bind terminal on /dev/console"
	dev, tree, target := c.Slot("dev"), c.Slot("tree"), c.Slot("target")
	c.open(bindStep, c.root, "dev", unix.O_PATH|unix.O_DIRECTORY, noLinks).Store(dev)
	c.Call(bindStep, p.Mknodat, dev, c.Str("console"), p.Flag(unix.S_IFREG|0o600, "S_IFREG|0600"), p.Int(0)).Tolerate(unix.EEXIST)
	c.open(bindStep, dev, "console", unix.O_PATH|unix.O_NOFOLLOW, noLinks).Store(target)
	c.clone(bindStep, c.console, "", false, 0, tree)
	c.attach(bindStep, tree, target)
}

// openConsole sets the terminal up from its master's descriptor.
func (c *compiler) openConsole(step string, master p.Arg, size *specs.Box) {
	c.plan.terminal = true
	unlock := c.Data(make([]byte, 8), "&0")
	c.Call(step, p.Ioctl, master, p.Flag(unix.TIOCSPTLCK, "TIOCSPTLCK"), unlock)
	c.console = c.Slot("console")
	c.Call(step, p.Ioctl, master, p.Flag(unix.TIOCGPTPEER, "TIOCGPTPEER"),
		p.Flag(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, "O_RDWR|O_NOCTTY")).Store(c.console)
	if size != nil {
		ws := []byte{byte(size.Height), byte(size.Height >> 8), byte(size.Width), byte(size.Width >> 8), 0, 0, 0, 0}
		c.Call(step, p.Ioctl, master, p.Flag(unix.TIOCSWINSZ, "TIOCSWINSZ"), c.Data(ws, "size"))
	}
	c.sendMaster(step, master)
	for fd := range 3 {
		c.Call(step, p.Dup3, c.console, p.Int(fd), p.Int(0))
	}
	if !c.confinedFork {
		c.controlTerminal()
	}
}

// controlTerminal makes the terminal that of the session this process leads.
func (c *compiler) controlTerminal() {
	c.Call("open terminal", p.Ioctl, p.Int(0), p.Flag(unix.TIOCSCTTY, "TIOCSCTTY"), p.Int(0))
}

// sendMaster passes the master to the parent over the sync socket.
func (c *compiler) sendMaster(step string, master p.Arg) {
	msg, number := c.descriptorMessage(msgConsole)
	c.Call(step, p.Fcntl, master, p.Flag(unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"), p.Int(0)).Store(number)
	c.Call(step, p.Sendmsg, p.Fd(fdSync, "<sync>"), msg, p.Int(0))
}

// descriptorMessage is a struct msghdr of one byte and a descriptor in a control
// message (unix(7), SCM_RIGHTS); its number is to be stored in the slot.
func (c *compiler) descriptorMessage(name string) (msg, number p.Arg) {
	control := make([]byte, unix.CmsgSpace(4))
	control[0] = byte(unix.CmsgLen(4))
	control[8] = unix.SOL_SOCKET
	control[12] = unix.SCM_RIGHTS
	ctl := c.Data(control, "descriptor")
	iov := c.Pointers("", c.Data([]byte(name), ""), p.Int(1))
	msg = c.Pointers("{"+name+", fd}", p.Null, p.Int(0), iov, p.Int(1), ctl, p.Int(len(control)), p.Int(0))
	return msg, c.SlotIn(ctl, 16, "message.fd")
}

// What the process says on the sync socket, one byte each.
const (
	msgConsole  = "c" // carries the terminal's master
	msgListener = "l" // carries the seccomp filter's listener, or says that it is there
	msgGo       = "g" // from the parent: go on
	msgReady    = "r" // set up, waiting for the start signal
)
