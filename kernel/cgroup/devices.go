package cgroup

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// deviceSet is what a list of the spec's device rules comes to: a default and
// the exceptions from it. It is how cgroup v1 keeps its rules; v2 gets the same
// set as a BPF program, so that both hosts allow the same.
type deviceSet struct {
	allow      bool // the default
	exceptions map[device]access
	order      []device // the exceptions', by their first rule
}

// device is a device or, with wildcards, several.
type device struct {
	kind         byte // 'b' or 'c'
	major, minor int64
}

// wildcard is any major or minor number.
const wildcard = -1

// access is what may be done, in the bits of struct bpf_cgroup_dev_ctx.
type access uint8

const (
	mayMknod  access = unix.BPF_DEVCG_ACC_MKNOD
	mayRead   access = unix.BPF_DEVCG_ACC_READ
	mayWrite  access = unix.BPF_DEVCG_ACC_WRITE
	mayAnyhow        = mayMknod | mayRead | mayWrite
)

// compileDevices works out what the rules come to; nil when there are none. The
// list starts from "deny everything", as in runc, and later rules count over
// earlier ones.
func compileDevices(res *specs.LinuxResources) (*deviceSet, error) {
	if res == nil || len(res.Devices) == 0 {
		return nil, nil
	}
	set := newDeviceSet(false)
	for i := range res.Devices {
		if err := set.add(&res.Devices[i]); err != nil {
			return nil, fmt.Errorf("devices[%d]: %w", i, err)
		}
	}
	return set, nil
}

func newDeviceSet(allow bool) *deviceSet {
	return &deviceSet{allow: allow, exceptions: make(map[device]access)}
}

// except adds an exception.
func (s *deviceSet) except(d device, how access) {
	if _, known := s.exceptions[d]; !known {
		s.order = append(s.order, d)
	}
	s.exceptions[d] |= how
}

// take takes a part of an exception back.
func (s *deviceSet) take(d device, how access) {
	if s.exceptions[d] &^= how; s.exceptions[d] != 0 {
		return
	}
	delete(s.exceptions, d)
	s.order = slices.DeleteFunc(s.order, func(o device) bool { return o == d })
}

// add applies one rule.
func (s *deviceSet) add(r *specs.LinuxDeviceCgroup) error {
	d := device{major: wildcard, minor: wildcard}
	if r.Major != nil {
		d.major = *r.Major
	}
	if r.Minor != nil {
		d.minor = *r.Minor
	}
	if d.major < wildcard || d.major > math.MaxInt32 || d.minor < wildcard || d.minor > math.MaxInt32 {
		return fmt.Errorf("device number %d:%d: %w", d.major, d.minor, errdefs.ErrInvalid)
	}
	kinds, err := deviceKinds(r.Type)
	if err != nil {
		return err
	}
	how, err := parseAccess(r.Access, len(kinds) == 2)
	if err != nil {
		return err
	}
	if len(kinds) == 2 && d.major == wildcard && d.minor == wildcard && how == mayAnyhow {
		*s = *newDeviceSet(r.Allow)
		return nil
	}
	for _, d.kind = range kinds {
		if err := s.change(d, how, r.Allow); err != nil {
			return err
		}
	}
	return nil
}

// deviceKinds: "a", the default, is both.
func deviceKinds(t string) ([]byte, error) {
	switch t {
	case "", "a":
		return []byte("bc"), nil
	case "b":
		return []byte("b"), nil
	case "c", "u":
		return []byte("c"), nil
	}
	return nil, fmt.Errorf("device type %q is none of a, b, c, u: %w", t, errdefs.ErrInvalid)
}

// parseAccess reads "rwm" or a part of it. Nothing at all means everything in a
// rule for all devices, as runc and crun have it, and is refused elsewhere.
func parseAccess(s string, mayBeEmpty bool) (access, error) {
	var how access
	for _, r := range s {
		switch r {
		case 'r':
			how |= mayRead
		case 'w':
			how |= mayWrite
		case 'm':
			how |= mayMknod
		default:
			return 0, fmt.Errorf("device access %q is not made of r, w, m: %w", s, errdefs.ErrInvalid)
		}
	}
	if how == 0 && mayBeEmpty {
		return mayAnyhow, nil
	}
	if how == 0 {
		return 0, fmt.Errorf("device access is empty: %w", errdefs.ErrInvalid)
	}
	return how, nil
}

// change adds an exception to the default, or takes it back. Cgroup v1 silently
// keeps what a wider exception covers; here that is an error on both versions,
// lest a device be thought shut which is open.
func (s *deviceSet) change(d device, how access, allow bool) error {
	if allow != s.allow {
		s.except(d, how)
		return nil
	}
	for other, covered := range s.exceptions {
		if other != d && other.kind == d.kind && overlap(other.major, d.major) && overlap(other.minor, d.minor) && covered&how != 0 &&
			!d.covers(other) {
			return fmt.Errorf("rule %s %s would make a hole in %s %s, which the kernel cannot: %w",
				d, how, other, covered, errdefs.ErrUnsupported)
		}
	}
	for _, other := range slices.Clone(s.order) {
		if d.covers(other) {
			s.take(other, how)
		}
	}
	return nil
}

func overlap(a, b int64) bool { return a == b || a == wildcard || b == wildcard }

// covers tells whether d is o or a wildcard over it.
func (d device) covers(o device) bool {
	return d.kind == o.kind && (d.major == wildcard || d.major == o.major) && (d.minor == wildcard || d.minor == o.minor)
}

// String is the form of cgroup v1's files: "c 1:*".
func (d device) String() string {
	return string(d.kind) + " " + deviceNumber(d.major) + ":" + deviceNumber(d.minor)
}

func deviceNumber(n int64) string {
	if n == wildcard {
		return "*"
	}
	return strconv.FormatInt(n, 10)
}

// String is the form of cgroup v1's files: "rwm".
func (a access) String() string {
	var b strings.Builder
	for _, f := range []struct {
		bit  access
		name byte
	}{{mayRead, 'r'}, {mayWrite, 'w'}, {mayMknod, 'm'}} {
		if a&f.bit != 0 {
			b.WriteByte(f.name)
		}
	}
	return b.String()
}

// setDevices applies the set to a group that nobody is in yet.
func (g *Group) setDevices(s *deviceSet) error {
	if s == nil {
		return nil
	}
	b, err := g.devicesBranch()
	if err != nil {
		return err
	}
	if b.v2 {
		return b.setDevicesV2(s)
	}
	return b.setDevicesV1(s)
}

// replaceDevices applies the set to a group in use, without a moment in which
// what is allowed before and after is not.
func (g *Group) replaceDevices(s *deviceSet) error {
	if s == nil {
		return nil
	}
	b, err := g.devicesBranch()
	if err != nil {
		return err
	}
	if b.v2 {
		return b.setDevicesV2(s)
	}
	return b.replaceDevicesV1(s)
}

func (g *Group) devicesBranch() (*branch, error) {
	b := g.branch("devices")
	if b == nil {
		return nil, fmt.Errorf("devices: this host has no devices controller: %w", errdefs.ErrUnsupported)
	}
	return b, nil
}

// setDevicesV1 writes the default, which drops all exceptions, then the new ones.
func (b *branch) setDevicesV1(s *deviceSet) error {
	if err := b.write(devicesFile(s.allow), "a"); err != nil {
		return classify(err)
	}
	return b.writeDevicesV1(devicesFile(!s.allow), s, func(d device) access { return s.exceptions[d] })
}

func devicesFile(allow bool) string {
	if allow {
		return "devices.allow"
	}
	return "devices.deny"
}

// writeDevicesV1 writes to the file a line for each exception of the set, with
// the access that pick says, if any; in the order of the rules, which is how the
// kernel lists them. One opened file takes them all.
func (b *branch) writeDevicesV1(file string, s *deviceSet, pick func(device) access) error {
	fd, err := b.open(file, unix.O_WRONLY)
	if err != nil {
		return classify(b.fail("open", file, err))
	}
	defer unix.Close(fd)
	for _, d := range s.order {
		how := pick(d)
		if how == 0 {
			continue
		}
		line := d.String() + " " + how.String()
		if _, err := retryEINTR(func() (int, error) { return unix.Write(fd, []byte(line)) }); err != nil {
			return classify(fmt.Errorf("set %s of cgroup %s to %q: %w", file, b.dir, line, err))
		}
	}
	return nil
}

// replaceDevicesV1 writes the difference, additions first, where both the old and
// the new set are lists of what is allowed. The exceptions of a list of what is
// denied cannot be read back: such a one is written anew.
func (b *branch) replaceDevicesV1(s *deviceSet) error {
	list, err := b.read("devices.list")
	if err != nil {
		return classify(err)
	}
	old, err := parseDevicesList(list)
	if err != nil {
		return err
	}
	if old.allow || s.allow {
		return b.setDevicesV1(s)
	}
	gained := func(d device) access { return s.exceptions[d] &^ old.exceptions[d] }
	if err := b.writeDevicesV1("devices.allow", s, gained); err != nil {
		return err
	}
	lost := func(d device) access { return old.exceptions[d] &^ s.exceptions[d] }
	return b.writeDevicesV1("devices.deny", old, lost)
}

// parseDevicesList reads devices.list: "a *:* rwm" alone when everything is
// allowed by default, else the allowed devices.
func parseDevicesList(s string) (*deviceSet, error) {
	set := newDeviceSet(false)
	for line := range strings.Lines(s) {
		f := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ':' || r == '\n' })
		if len(f) != 4 || len(f[0]) != 1 {
			return nil, fmt.Errorf("parse devices.list: malformed line %q", line)
		}
		if f[0] == "a" {
			return newDeviceSet(true), nil
		}
		how, err := parseAccess(f[3], false)
		if err != nil {
			return nil, fmt.Errorf("parse devices.list: %w", err)
		}
		d := device{kind: f[0][0]}
		for i, n := range []*int64{&d.major, &d.minor} {
			if *n = wildcard; f[1+i] == "*" {
				continue
			}
			if *n, err = strconv.ParseInt(f[1+i], 10, 64); err != nil {
				return nil, fmt.Errorf("parse devices.list: %w", err)
			}
		}
		set.except(d, how)
	}
	return set, nil
}
