package oci

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	p "github.com/berth-containers/berth/kernel/program"
	"github.com/berth-containers/berth/kernel/seccomp"
)

const (
	filterStep   = "load seccomp filter"
	listenerStep = "hand over the seccomp listener"
)

// filter compiles the profile; nil when there is none.
func (c *compiler) filter() (*seccomp.Filter, error) {
	profile := c.spec.Linux.Seccomp
	if profile == nil {
		return nil, nil
	}
	filter, err := seccomp.Compile(profile)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	if filter.Notify && profile.ListenerPath == "" {
		return nil, invalid("linux.seccomp: SCMP_ACT_NOTIFY needs listenerPath")
	}
	if len(filter.Unknown) > 0 {
		c.warn("linux.seccomp: no such system calls, rules for them have no effect: %s", strings.Join(filter.Unknown, " "))
	}
	return filter, nil
}

// loadFilter loads the filter; from here on only it and execve happen, and
// where somebody listens what hands the listener over and waits for the start.
func (c *compiler) loadFilter(f *seccomp.Filter) *p.Op {
	code := f.Bytes()
	prog := c.Pointers("filter", p.Int(len(code)/8), c.Data(code, ""))
	return c.Call(filterStep, p.Seccomp, p.Flag(unix.SECCOMP_SET_MODE_FILTER, "SET_MODE_FILTER"), p.Int(int(f.Flags)), prog)
}

// loadListening loads a filter that asks an agent about some calls, and hands
// the descriptor by which it does so to the parent. That happens under the filter,
// so it is done by what the filter permits: by sending the descriptor, or else
// by telling its number (as runc does), for which the parent needs the right to
// take it (pidfd_getfd(2)).
func (c *compiler) loadListening(f *seccomp.Filter, sync p.Arg) error {
	profile := c.spec.Linux.Seccomp
	l := &listener{path: profile.ListenerPath, metadata: profile.ListenerMetadata}
	c.plan.listener = l
	fd := uint64(fdExtra + len(c.in.extra)) // sync's number, see keepDescriptors
	waits := f.Permits(unix.SYS_READ, fd, 0, 1)
	switch {
	case f.Permits(unix.SYS_SENDMSG, fd):
		msg, number := c.descriptorMessage(msgListener)
		c.loadFilter(f).Store(number)
		c.Call(listenerStep, p.Sendmsg, sync, msg, p.Int(0))
	case waits && f.Permits(unix.SYS_WRITE, fd, 0, 1):
		l.number = c.Slot("listener")
		l.taken = true
		c.loadFilter(f).Store(l.number)
		c.Call(listenerStep, p.Write, sync, c.Str(msgListener), p.Int(1))
	default:
		return errdefs.WithHint(unsupported("linux.seccomp: a profile under which the process may neither sendmsg nor write and read freely"),
			"the listener's descriptor is handed over under the filter: let one of them pass without SCMP_ACT_NOTIFY")
	}
	if waits { // the command runs when the agent has its descriptor
		c.Call(listenerStep, p.Read, sync, c.Data(make([]byte, 8), "byte"), p.Int(1))
	}
	return nil
}
