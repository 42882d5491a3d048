package oci

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// msgPause asks the parent to do its part of the set-up (Container.midway).
const msgPause = "p"

// pause waits for the parent to do what only it can: hooks run while all of the
// container is there and the host's root is still the process's own. Without
// such work it costs nothing.
func (c *compiler) pause() {
	c.plan.netDevices = c.spec.Linux.NetDevices
	if c.pauses() {
		c.askParent("wait for the hooks", msgPause)
	}
}

func (c *compiler) pauses() bool {
	return hasCreateHooks(c.spec.Hooks) || len(c.spec.Linux.NetDevices) > 0
}

// askParent sends a message to the parent and waits for the byte that answers
// it. A parent that ended instead has closed the socket.
func (c *compiler) askParent(step, msg string) {
	c.Call(step, p.Write, p.Fd(fdSync, "<sync>"), c.Str(msg), p.Int(1))
	c.await(step)
}

// await waits for a byte of the parent's.
func (c *compiler) await(step string) {
	if c.orphaned == 0 {
		c.orphaned = c.NewLabel()
	}
	c.Call(step, p.Read, p.Fd(fdSync, "<sync>"), c.Data(make([]byte, 8), "answer"), p.Int(1)).ThenIfZero(c.orphaned)
}

// endOrphaned is where the program ends when the parent it waits for is gone.
func (c *compiler) endOrphaned() {
	if c.orphaned == 0 {
		return
	}
	c.Mark(c.orphaned)
	c.Call("end without a parent", p.ExitGroup, p.Int(255))
}

// compileHook makes the program of a hook in the runtime's namespaces, with the
// bundle as its working directory, as runc's hooks have it.
func compileHook(in *compileInput) *Plan {
	c := newCompiler(in)
	c.beginHook()
	c.finishHook()
	return c.plan
}

// compileInsideHook makes the program of a createContainer hook: in the
// namespaces of the container, while the root directory of its first process,
// from which the hook's path is taken, still is the host's.
func compileInsideHook(in *compileInput, init inherited, initPid int) *Plan {
	c := newCompiler(in)
	c.newUser = hasNamespace(in.spec.Linux, specs.UserNamespace)
	c.beginHook()
	c.joinCgroups()
	c.joinContainer(init, initPid, true)
	c.finishHook()
	return c.plan
}

func (c *compiler) beginHook() {
	c.Call("name the process", p.Prctl, p.Flag(unix.PR_SET_NAME, "PR_SET_NAME"), c.Str("berth:hook"))
}

func (c *compiler) finishHook() {
	c.resetSignals()
	// A user namespace's root may not be able to enter it.
	c.Call("change to the bundle", p.Chdir, c.Str(c.in.bundle)).TolerateAll()
	c.keepDescriptors()
	c.executeHook()
}

// executeHook runs the hook's program: by its path only, whatever it is called
// in its arguments.
func (c *compiler) executeHook() {
	h := c.in.hook
	c.Call(fmt.Sprintf("run %s", h.Path), p.Execve, c.Str(h.Path), c.Strings(hookArgs(h), "args"), c.Strings(h.Env, "env"))
}
