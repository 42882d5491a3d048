package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// setting is one value for one control file: what a limit of the OCI spec is
// compiled to.
type setting struct {
	controller  string // whose branch has the file
	file, value string
	field       string // of linux.resources, for errors

	// optional: a kernel without the file does the same as with the value.
	optional bool
	// reorder: an EINVAL may come of a setting that follows (a limit above
	// the old memory+swap limit, say), so it is tried again at the end.
	reorder bool
	// unset marks a file with a line for each device, of which value sets one,
	// and is what takes that line back.
	unset string
	// otherwise is tried when the kernel does not have the file, or not for that
	// device.
	otherwise *setting
}

// Set changes the limits to those of res; what res leaves nil (or 0, but for
// pids.limit) stays as it is. Devices, when given, are replaced as a whole. A
// value the kernel refuses is named in the error, and the others are taken back.
func (g *Group) Set(res *specs.LinuxResources) error {
	settings, err := g.compile(res, false)
	if err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.path, err)
	}
	devices, err := compileDevices(res)
	if err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.path, err)
	}
	if err := g.checkUsage(res); err != nil {
		return err
	}
	if required := needed(settings); len(required) > 0 {
		if b := g.unified(); b != nil && b.hasAny(required) {
			if err := b.passControllers(g.wanted(b, required), required); err != nil {
				return classify(err)
			}
		}
	}
	var undo rollback
	if err := g.apply(settings, &undo); err != nil {
		return errors.Join(err, undo.run())
	}
	if err := g.replaceDevices(devices); err != nil {
		return errors.Join(err, undo.run())
	}
	return nil
}

// Value is one value for a control file.
type Value struct{ File, Value string }

// Values is what [Group.Adopt] (fresh) or [Group.Set] would write for res, but for
// the devices, in their order.
func (g *Group) Values(res *specs.LinuxResources, fresh bool) ([]Value, error) {
	settings, err := g.compile(res, fresh)
	if err != nil {
		return nil, fmt.Errorf("limit cgroup %s: %w", g.path, err)
	}
	var values []Value
	for i := range settings {
		values = append(values, Value{settings[i].file, settings[i].value})
	}
	return values, nil
}

// Current is what the files of those values hold now; files that are not there
// are left out.
func (g *Group) Current(values []Value) []Value {
	b := g.unified()
	if b == nil {
		return nil
	}
	var now []Value
	for _, v := range values {
		if s, err := b.read(v.File); err == nil {
			now = append(now, Value{v.File, strings.TrimSpace(s)})
		}
	}
	return now
}

// apply writes the settings in their order. undo, unless nil, learns what was
// there before.
func (g *Group) apply(settings []setting, undo *rollback) error {
	var again []setting
	for i := range settings {
		s := &settings[i]
		if undo != nil {
			undo.note(g, s)
		}
		err := g.write(s)
		if s.reorder && errors.Is(err, unix.EINVAL) {
			again = append(again, *s)
			continue
		}
		if err != nil {
			return err
		}
	}
	for i := range again {
		if err := g.write(&again[i]); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) write(s *setting) error {
	b := g.branch(s.controller)
	fd, err := b.open(s.file, unix.O_WRONLY)
	if err == unix.ENOENT {
		switch {
		case s.otherwise != nil:
			return g.write(s.otherwise)
		case s.optional:
			return nil
		}
		return fmt.Errorf("%s: this kernel has no %s: %w", s.field, s.file, errdefs.ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.field, classify(b.fail("open", s.file, err)))
	}
	defer unix.Close(fd)
	_, err = retryEINTR(func() (int, error) { return unix.Write(fd, []byte(s.value)) })
	if err == nil {
		return nil
	}
	if err == unix.EOPNOTSUPP && s.otherwise != nil {
		return g.write(s.otherwise)
	}
	return b.refused(s, err)
}

// refused explains why the kernel did not take a value.
func (b *branch) refused(s *setting, why error) error {
	err := fmt.Errorf("%s: set %s of cgroup %s to %s: %w", s.field, s.file, b.dir, s.value, why)
	switch why {
	case unix.EBUSY:
		return errdefs.WithHint(classify(err), "The group uses more than that now: stop or shrink its processes, or choose a higher limit.")
	case unix.EOPNOTSUPP:
		return errdefs.As(errdefs.ErrUnsupported, err)
	case unix.ENODEV: // of the cgroup, which is gone, or of what the value names
		if _, gerr := b.read("cgroup.procs"); gerr == nil {
			return errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, err), "This host has no such device, or it is a partition: name the whole disk.")
		}
	}
	return classify(err)
}

// needed lists the controllers of the settings.
func needed(settings []setting) []string {
	var names []string
	for i := range settings {
		if !slices.Contains(names, settings[i].controller) {
			names = append(names, settings[i].controller)
		}
	}
	return names
}

// compiler turns an OCI LinuxResources into settings. It writes nothing.
type compiler struct {
	g *Group
	// fresh: the group is to be made, so nothing can be read from it and the
	// kernel's defaults hold.
	fresh    bool
	settings []setting
	err      error
}

// compile returns the settings of res, in the order in which to write them.
func (g *Group) compile(res *specs.LinuxResources, fresh bool) ([]setting, error) {
	if res == nil {
		return nil, nil
	}
	c := &compiler{g: g, fresh: fresh}
	if res.Memory != nil {
		c.memory(res.Memory)
	}
	if res.CPU != nil {
		c.cpu(res.CPU)
		c.cpuset(res.CPU)
	}
	if res.Pids != nil && res.Pids.Limit != nil {
		c.pids(*res.Pids.Limit)
	}
	if res.BlockIO != nil {
		c.io(res.BlockIO)
	}
	c.hugetlb(res.HugepageLimits)
	if res.Network != nil {
		c.network(res.Network)
	}
	c.rdma(res.Rdma)
	c.unified(res.Unified)
	return c.settings, c.err
}

// version returns where the controller lives: 1, 2, or 0 (and an error of the
// whole compilation) when this host has it nowhere.
func (c *compiler) version(controller, field string) int {
	b := c.g.branch(controller)
	if b == nil {
		c.fail(fmt.Errorf("%s: this host has no %s controller: %w", field, controller, errdefs.ErrUnsupported))
		return 0
	}
	if b.v2 {
		return 2
	}
	return 1
}

// fail keeps the first error.
func (c *compiler) fail(err error) {
	c.err = cmp.Or(c.err, err)
}

func (c *compiler) unsupported(field, why string) {
	c.fail(fmt.Errorf("%s: %s: %w", field, why, errdefs.ErrUnsupported))
}

func (c *compiler) invalid(field string, value any, why string) {
	c.fail(fmt.Errorf("%s: %v: %s: %w", field, value, why, errdefs.ErrInvalid))
}

func (c *compiler) add(s setting) { c.settings = append(c.settings, s) }

// limit writes a number of bytes; -1 is v1's and the spec's "no limit".
func limit(n int64, v2 bool) string {
	if v2 && n == -1 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// value returns what p points to, 0 for nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
