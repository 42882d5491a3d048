package oci

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// confined walks a container's program as the kernel would see it and says what
// in it could touch a file of the host's: mount points and nodes may only be
// reached by descriptors that openat2 resolved under the container's root, or lie
// in a filesystem the program itself has made.
func confined(plan *Plan, root string) error {
	prog := plan.Program
	image, err := prog.Encode()
	if err != nil {
		return err
	}
	w := walker{image: image, slots: map[uint64]kind{}, root: root}
	for i, f := range plan.files {
		switch {
		case f.procfs:
			w.proc = uint64(p.FirstFile + i)
		case f.make != nil:
			w.made = append(w.made, uint64(p.FirstFile+i))
		}
	}
	for i := range prog.Len() {
		op := prog.Op(i)
		if err := w.step(op.Sys.Name, w.decode(i)); err != nil {
			return fmt.Errorf("op %d, %s (%s): %w", i, op.Sys.Name, op.Step, err)
		}
	}
	return nil
}

// kind is what a descriptor refers to.
type kind int

const (
	unknown  kind = iota
	rootDir       // the container's root
	inside        // found under it
	mount         // a mount of the program's own, attached nowhere or where allowed
	terminal      // a pseudoterminal
	sysctls       // the host's /proc/sys
	setting       // one of the files there, or the process's own oom_score_adj
)

type walker struct {
	image    []byte
	proc     uint64   // descriptor of the caller's /proc
	made     []uint64 // descriptors of mounts the parent makes
	root     string   // path of the root filesystem
	cwd      kind
	rootFd   uint64 // the root, where the parent made it
	slots    map[uint64]kind
	attached bool // the root is, at the path rootAt
	rootAt   string
	entered  bool // "/" is the container's
}

// operand is a decoded argument.
type operand struct {
	address, slot bool
	value         uint64
}

type decoded struct {
	args  [6]operand
	store uint64
}

// decode reads an op back from the image (see encode.go).
func (w *walker) decode(i int) decoded {
	le := binary.LittleEndian
	b := w.image[128*(1+i):]
	kinds := le.Uint32(b[4:])
	var d decoded
	for j := range d.args {
		k := kinds >> (2 * j) & 3
		d.args[j] = operand{k == 1, k == 2, le.Uint64(b[8+8*j:])}
	}
	d.store = uint64(le.Uint32(b[56:]))
	return d
}

func (w *walker) str(o operand) string {
	if !o.address {
		return ""
	}
	s := w.image[o.value:]
	return string(s[:bytes.IndexByte(s, 0)])
}

func (w *walker) word(o operand, at int) uint64 {
	return binary.LittleEndian.Uint64(w.image[int(o.value)+at:])
}

// of is what the descriptor in an argument refers to. Inherited ones are
// numbers.
func (w *walker) of(o operand) kind {
	switch {
	case o.slot:
		return w.slots[o.value]
	case w.rootFd != 0 && o.value == w.rootFd:
		return rootDir
	case slices.Contains(w.made, o.value):
		return mount
	}
	return unknown
}

const cwd = 0xffffffffffffff9c

func (w *walker) note(d decoded, k kind) error {
	if old, ok := w.slots[d.store]; ok && old != k {
		return fmt.Errorf("the slot holds kind %d and kind %d", old, k)
	}
	w.slots[d.store] = k
	return nil
}

// single tells whether s is one name that is no way out.
func single(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.Contains(s, "/")
}

func (w *walker) step(name string, d decoded) error {
	if w.entered { // paths are the container's
		return nil
	}
	switch name {
	case "openat2":
		return w.openat2(d)
	case "openat":
		return w.openat(d)
	case "open_tree", "fsmount":
		return w.note(d, mount)
	case "move_mount":
		return w.moveMount(d)
	case "mkdirat", "mknodat", "symlinkat", "fchownat", "fchmodat":
		return w.makeNode(name, d)
	case "mount":
		if w.str(d.args[1]) == "." && w.cwd == inside && d.args[3].value&(unix.MS_BIND|unix.MS_REMOUNT|unix.MS_MOVE) == 0 {
			return nil
		}
		if w.str(d.args[1]) != "/" || d.args[0].value != 0 || d.args[2].value != 0 || d.args[3].value&(unix.MS_BIND|unix.MS_REMOUNT|unix.MS_MOVE) != 0 {
			return fmt.Errorf("mount(2) for more than the propagation of /")
		}
	case "fchdir":
		if w.cwd = w.of(d.args[0]); w.cwd != rootDir && w.cwd != inside {
			return fmt.Errorf("to descriptor of kind %d", w.cwd)
		}
	case "pivot_root", "chroot":
		if w.cwd != rootDir {
			return fmt.Errorf("from elsewhere than the root")
		}
		w.entered = true
	case "umount2": // something is to be the root in place of the first one
		if !w.attached || w.str(d.args[0]) != w.rootAt {
			return fmt.Errorf("of %q", w.str(d.args[0]))
		}
		w.attached = false
	case "execve", "chdir":
		return fmt.Errorf("before the root is entered")
	case "ioctl":
		if d.store != 0 {
			return w.note(d, terminal)
		}
	case "mount_setattr":
		if w.of(d.args[0]) == unknown && d.args[0].slot {
			return fmt.Errorf("of an unknown mount")
		}
	}
	return nil
}

func (w *walker) openat2(d decoded) error {
	flags, resolve := w.word(d.args[2], 0), w.word(d.args[2], 16)
	if flags&unix.O_CLOEXEC == 0 {
		return fmt.Errorf("not close-on-exec")
	}
	if at := d.args[0]; w.proc != 0 && !at.slot && at.value == w.proc {
		return w.procFile(d, resolve)
	}
	at := w.of(d.args[0])
	if at != rootDir && at != inside && at != mount {
		return fmt.Errorf("below descriptor of kind %d", at)
	}
	if resolve&unix.RESOLVE_IN_ROOT == 0 || resolve&unix.RESOLVE_NO_MAGICLINKS == 0 {
		return fmt.Errorf("resolve flags %#x", resolve)
	}
	if flags&unix.O_PATH == 0 && flags&(unix.O_CREAT|unix.O_WRONLY|unix.O_RDWR) != 0 && !strings.HasPrefix(w.str(d.args[1]), "dev/pts/") {
		return fmt.Errorf("writes %s", w.str(d.args[1]))
	}
	return w.note(d, inside)
}

// procFile opens a file of the caller's /proc: the process's own, or a kernel
// parameter of a namespace.
func (w *walker) procFile(d decoded, resolve uint64) error {
	const limits = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS
	path := w.str(d.args[1])
	sysctl, isSysctl := strings.CutPrefix(path, "sys/")
	dotted := strings.ReplaceAll(sysctl, "/", ".")
	switch {
	case resolve&limits != limits:
		return fmt.Errorf("resolve flags %#x", resolve)
	case strings.Contains(path, "..") || strings.HasPrefix(path, "/"):
		return fmt.Errorf("opens %s", path)
	case isSysctl && !strings.HasPrefix(dotted, "net.") && !strings.HasPrefix(dotted, "fs.mqueue.") && dotted != "kernel.domainname" && !isIPCSysctl(dotted):
		return fmt.Errorf("sets %s", path)
	case !isSysctl && path != "self/oom_score_adj" && !strings.HasPrefix(path, "self/attr/"):
		return fmt.Errorf("opens %s", path)
	}
	return w.note(d, setting)
}

// openat opens the root where there is no mount namespace, and nothing else of
// the host's.
func (w *walker) openat(d decoded) error {
	if d.args[0].value != cwd || d.args[2].value&unix.O_PATH == 0 {
		return fmt.Errorf("opens %s", w.str(d.args[1]))
	}
	return w.note(d, rootDir)
}

func (w *walker) moveMount(d decoded) error {
	from, to := w.of(d.args[0]), w.of(d.args[2])
	if from != mount || w.str(d.args[1]) != "" {
		return fmt.Errorf("of what is no mount of its own (kind %d)", from)
	}
	path := w.str(d.args[3])
	switch {
	case !w.attached && d.args[2].value == cwd && (path == "/" || path == w.root):
		w.attached, w.rootAt = true, path
		if d.args[0].slot {
			w.slots[d.args[0].value] = rootDir
		} else {
			w.rootFd = d.args[0].value
		}
		return nil
	case path == "" && d.args[4].value&unix.MOVE_MOUNT_T_EMPTY_PATH != 0 && (to == inside || to == rootDir):
		return nil
	case to == mount && single(path):
		return nil
	}
	return fmt.Errorf("onto %q below descriptor of kind %d", path, to)
}

func (w *walker) makeNode(name string, d decoded) error {
	at, path := d.args[0], w.str(d.args[1])
	if name == "symlinkat" {
		at, path = d.args[1], w.str(d.args[2])
	}
	if k := w.of(at); k != inside && k != rootDir && k != mount {
		return fmt.Errorf("below descriptor of kind %d", k)
	}
	if !single(path) {
		return fmt.Errorf("path %q", path)
	}
	return nil
}

func TestProgramsStayInTheirRoot(t *testing.T) {
	compiled := 0
	for _, b := range seeds(t) {
		spec, err := ParseSpec(b)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Compile(spec, "/bundle")
		if err != nil {
			t.Logf("refused: %v", err)
			continue
		}
		compiled++
		if err := confined(plan, rootPathOf(spec, "/bundle")); err != nil {
			t.Errorf("%v\n%s", err, b)
		}
	}
	if compiled < 3 {
		t.Errorf("only %d seeds are configurations", compiled)
	}
}

// What looks for escapes must find them.
func TestEscapesAreSeen(t *testing.T) {
	root := func(c *compiler) p.Arg {
		c.root = c.Slot("root")
		c.clone("bind", atCwd, "/bundle/rootfs", true, 0, c.root)
		c.Call("attach", p.MoveMount, c.root, c.Str(""), atCwd, c.Str("/"), p.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
		return c.root
	}
	for name, build := range map[string]func(*compiler){
		"a mount by path": func(c *compiler) {
			c.Call("x", p.Mount, c.Str("/a"), c.Str("/bundle/rootfs/b"), p.Null, p.Int(unix.MS_BIND), p.Null)
		},
		"a path resolved without limit": func(c *compiler) {
			c.open("x", root(c), "a", unix.O_PATH, unix.RESOLVE_NO_MAGICLINKS).Store(c.Slot("t"))
		},
		"a path of the host": func(c *compiler) { c.open("x", atCwd, "/a", unix.O_PATH, inRoot).Store(c.Slot("t")) },
		"a node by path":     func(c *compiler) { c.Call("x", p.Mkdirat, root(c), c.Str("a/b"), p.Int(0)) },
		"a node above":       func(c *compiler) { c.Call("x", p.Mknodat, root(c), c.Str(".."), p.Int(0), p.Int(0)) },
		"a second root": func(c *compiler) {
			root(c)
			root(c)
		},
		"a mount onto a name": func(c *compiler) {
			tree := c.Slot("tree")
			c.clone("x", atCwd, "/a", true, 0, tree)
			c.Call("x", p.MoveMount, tree, c.Str(""), root(c), c.Str("a"), p.Int(0))
		},
		"a file of the host":         func(c *compiler) { c.writeFile("x", "/etc/passwd", "x") },
		"a sysctl of the host":       func(c *compiler) { c.writeProc("x", "sys/kernel/core_pattern", "x") },
		"the command before the end": func(c *compiler) { c.Call("x", p.Execve, c.Str("/a"), p.Null, p.Null) },
	} {
		c := newCompiler(&compileInput{spec: DefaultSpec()})
		build(c)
		if err := confined(c.plan, "/bundle/rootfs"); err == nil {
			t.Errorf("%s was not seen", name)
		}
	}
}
