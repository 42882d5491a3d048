package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/image"
	"github.com/berth-containers/berth/oci"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	usernsHost = "host"
	usernsAuto = "auto"
	// usernsSize is how many ids a container gets that names no number: all that
	// programs count with that know 16 bits.
	usernsSize = 65536
	// usernsLeast is the least number: the container's terminals belong to
	// group 5.
	usernsLeast = 6
)

// parseUserns reads --userns: host, or a user namespace of the container's own
// with ids the engine chooses: auto, auto:size=N, or Docker's word private. size
// is 0 for the host's.
func parseUserns(mode container.UsernsMode) (size uint32, err error) {
	word, options, has := strings.Cut(string(mode), ":")
	switch {
	case (word == "" || word == usernsHost) && !has:
		return 0, nil
	case word == "private" && !has, word == usernsAuto && !has:
		return usernsSize, nil
	case word == usernsAuto:
		value, ok := strings.CutPrefix(options, "size=")
		n, err := strconv.ParseUint(value, 10, 32)
		if !ok || err != nil || n < usernsLeast {
			return 0, errdefs.WithHint(invalidf("invalid USER mode: %s", mode), fmt.Sprintf("say auto:size=N, with at least %d ids", usernsLeast))
		}
		return uint32(n), nil
	}
	return 0, errdefs.WithHint(invalidf("invalid USER mode: %s", mode), "there are host, private, auto, auto:size=N and container:NAME")
}

// joinedUserns is the container of --userns=container:NAME.
func joinedUserns(mode container.UsernsMode) (ref string, ok bool) {
	ref, ok = strings.CutPrefix(string(mode), "container:")
	return ref, ok && ref != ""
}

// checkUserns refuses what is of no use, or no protection, together with a user
// namespace of the container's own.
func checkUserns(hc *container.HostConfig) error {
	if _, joined := joinedUserns(hc.UsernsMode); joined {
		return nil // depends on the other: see pinUserns
	}
	size, err := parseUserns(hc.UsernsMode)
	if err != nil {
		return err
	}
	if size == 0 {
		return checkUnmapped(hc)
	}
	return checkShares(hc, "")
}

// checkUnmapped refuses what makes sense in a user namespace alone.
func checkUnmapped(hc *container.HostConfig) error {
	for _, b := range hc.Binds {
		if parts := strings.Split(b, ":"); len(parts) == 3 && hasOption(parts[2], optionIDMap) {
			return errdefs.WithHint(invalidf("volume %q: idmap without a user namespace", b), "give --userns=auto too")
		}
	}
	return nil
}

// checkShares refuses what does not go with a user namespace: namespaces of the
// host, and of containers in other ones than the container shared's.
func checkShares(hc *container.HostConfig, shared string) error {
	foreign := func(joins bool, id string) bool { return joins && (shared == "" || id != shared) }
	for _, f := range []struct {
		set  bool
		what string
	}{
		{hc.Privileged, "privileged mode is"},
		{hc.NetworkMode.IsHost() || foreign(hc.NetworkMode.IsContainer(), hc.NetworkMode.ConnectedContainer()), "sharing a network namespace is"},
		{hc.PidMode.IsHost() || foreign(hc.PidMode.IsContainer(), hc.PidMode.Container()), "sharing a PID namespace is"},
		{hc.IpcMode.IsHost() || foreign(hc.IpcMode.IsContainer(), hc.IpcMode.Container()), "sharing an IPC namespace is"},
	} {
		if f.set {
			return errdefs.WithHint(invalidf("%s incompatible with user namespaces", f.what),
				"run the container with --userns=host, or share the user namespace of the same container: --userns=container:NAME")
		}
	}
	return nil
}

// optionIDMap among a bind's options has its files keep their owners: what
// belongs to the host's user 1000 belongs to the container's.
const optionIDMap = "idmap"

func hasOption(list, option string) bool {
	for _, o := range strings.Split(list, ",") {
		if o == option {
			return true
		}
	}
	return false
}

// userns is the user namespace of a starting container, with the network
// namespace that belongs to it; nil is the host's.
type userns struct {
	ids       *idMapping
	user, net *os.File
}

// makeUserns makes the namespaces of a container that has ids of its own.
func (e *Engine) makeUserns(rec *record) (*userns, error) {
	if rec.IDs == nil {
		return nil, nil
	}
	runner, err := oci.NewRunner()
	if err != nil {
		return nil, err
	}
	defer runner.Close()
	u := &userns{ids: rec.IDs}
	if other, ok := joinedUserns(rec.HostConfig.UsernsMode); ok {
		return u, e.joinUserns(u, rec, other, runner)
	}
	u.user, u.net, err = runner.UserNamespace(rec.IDs.uids(), rec.IDs.gids())
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EPERM) {
		err = errdefs.WithHint(err, "the kernel allows no more user namespaces: see user.max_user_namespaces in sysctl")
	}
	return u, err
}

// joinUserns opens the user namespace of another container, and makes a network
// namespace in it for who has one of its own on a bridge.
func (e *Engine) joinUserns(u *userns, rec *record, other string, runner *oci.Runner) (err error) {
	if u.user, err = e.openNamespace(other, "user"); err != nil {
		return err
	}
	if rec.HostConfig.NetworkMode.IsBridge() {
		if u.net, err = runner.NetworkNamespace(u.user); err != nil {
			return errors.Join(err, u.user.Close())
		}
	}
	return nil
}

// pinUserns replaces the name in --userns=container:NAME by the id and checks
// what depends on that container's own namespace. It comes after the other names
// have been replaced.
func (e *Engine) pinUserns(hc *container.HostConfig) error {
	ref, ok := joinedUserns(hc.UsernsMode)
	if !ok {
		return nil
	}
	c, err := e.containers.get(ref)
	if err != nil {
		// Not ErrNotFound: at a create, docker takes that for a missing image.
		return invalidf("join namespaces: %v", err)
	}
	hc.UsernsMode = container.UsernsMode("container:" + c.id)
	if c.snapshot().IDs == nil { // it is the host's
		return checkUnmapped(hc)
	}
	shared := c.id
	if first, ok := joinedUserns(c.snapshot().HostConfig.UsernsMode); ok {
		return errdefs.WithHint(invalidf("container %s shares the user namespace of another itself", short(c.id)), "join that one: --userns=container:"+short(first))
	}
	return checkShares(hc, shared)
}

func (u *userns) close() {
	if u == nil {
		return
	}
	for _, f := range []*os.File{u.user, u.net} {
		if f != nil {
			f.Close()
		}
	}
}

// mountRoot mounts the container's root, labelled, and mapped when its ids are.
func (e *Engine) mountRoot(ctx context.Context, rec *record, u *userns) (*os.File, error) {
	o := u.rootOptions()
	_, o.Label = rec.Labels.shown()
	return e.images.MountRoot(ctx, rec.ID, o)
}

// rootOptions map a mount's owners to the namespace's.
func (u *userns) rootOptions() (o image.RootOptions) {
	if u != nil {
		o.Userns, o.UID, o.GID = u.user, u.ids.UID, u.ids.GID
	}
	return o
}

// newNetns makes and pins the container's network namespace.
func (e *Engine) newNetns(id string, u *userns) (string, error) {
	if u == nil {
		return e.nets.NewNamespace(id)
	}
	return e.nets.PinNamespace(id, u.net)
}

// checkMapped refuses a user that the container's ids do not reach.
func (u *userns) checkMapped(p *processUser) error {
	if u == nil {
		return nil
	}
	for _, id := range append([]uint32{p.UID, p.GID}, p.AdditionalGids...) {
		if id >= u.ids.Size {
			return errdefs.WithHint(invalidf("id %d is outside of the container's user namespace, which has %d", id, u.ids.Size),
				fmt.Sprintf("make the container with --userns=auto:size=%d or more", id+1))
		}
	}
	return nil
}

// mapSpec puts the namespace into the spec and fits the rest to it.
func (u *userns) mapSpec(s *specs.Spec, in *specSources) {
	if u == nil {
		return
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: descriptorPath(u.user)})
	s.Linux.UIDMappings, s.Linux.GIDMappings = u.ids.uids(), u.ids.gids()
	if _, set := s.Linux.Sysctl[sysctlPing]; set && in.rec.HostConfig.Sysctls[sysctlPing] == "" {
		s.Linux.Sysctl[sysctlPing] = fmt.Sprintf("0 %d", u.ids.Size-1)
	}
	own := map[string]bool{}
	for i := range in.rec.Mounts {
		m := &in.rec.Mounts[i]
		own[m.Destination] = m.Type == "volume" || hasOption(m.Mode, optionIDMap)
	}
	for _, path := range in.etc {
		own[path] = true
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Type == "bind" && (own[m.Destination] || own[m.Source]) {
			m.Options = append(m.Options, optionIDMap)
		}
	}
	// No nodes can be made in a user namespace: the host's are bound.
	s.Linux.Devices = nil
	for _, d := range in.devices {
		s.Mounts = append(s.Mounts, boundNode(d.node.Path, d.host))
	}
}

// boundNode has a device's node on the host shown in the container.
func boundNode(inside, host string) specs.Mount {
	return specs.Mount{Destination: inside, Type: "bind", Source: host, Options: []string{"bind", "nosuid", "noexec"}}
}

// descriptorPath names an open file for the keeper, another process.
func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// assignIDs gives the container ids of its own when it asks for a user
// namespace.
func (e *Engine) assignIDs(rec *record) error {
	if other, ok := joinedUserns(rec.HostConfig.UsernsMode); ok {
		c, err := e.containers.get(other)
		if err != nil {
			return invalidf("join namespaces: %v", err)
		}
		rec.IDs = c.snapshot().IDs
		e.ids.adopt(rec.ID, rec.IDs) // they stay taken for as long as one of them is there
		return nil
	}
	size, err := parseUserns(rec.HostConfig.UsernsMode) // checked before
	if err != nil || size == 0 {
		return err
	}
	rec.IDs, err = e.ids.assign(rec.ID, size)
	return err
}

// inside is what the container sees of a file's owner. Owners it has no ids of
// stay as they are shown.
func (m *idMapping) inside(st *unix.Statx_t) {
	if m == nil {
		return
	}
	if n := st.Uid - m.UID; n < m.Size {
		st.Uid = n
	}
	if n := st.Gid - m.GID; n < m.Size {
		st.Gid = n
	}
}

// outside is who a container's user and group are on the host.
func (m *idMapping) outside(uid, gid int) (hostUID, hostGID int, err error) {
	if m == nil {
		return uid, gid, nil
	}
	for _, id := range []int{uid, gid} {
		if id < 0 || id >= int(m.Size) {
			return 0, 0, errdefs.WithHint(invalidf("owner %d:%d is outside of the container's user namespace, which has %d ids", uid, gid, m.Size),
				"give the files other owners (tar --owner=0 --group=0 -c FILES | berth cp - CONTAINER:DIR), or make the container with a larger --userns=auto:size=N")
		}
	}
	return int(m.UID) + uid, int(m.GID) + gid, nil
}

// asRootOf runs f as who owns the files that the root of a container with ids of
// its own makes: the kernel takes none there from who has no id in it. Without
// ids f is simply called. What f starts does not run so.
func asRootOf(m *idMapping, f func() error) error {
	if m == nil {
		return f()
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := image.BecomeOwner(int(m.UID), int(m.GID))
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// CheckUserns checks the configuration's user namespace mode and id range.
func CheckUserns(mode, ids string) error {
	if _, err := parseUserns(container.UsernsMode(mode)); err != nil || ids == "" {
		return err
	}
	_, err := parseIDRange(ids)
	return err
}
