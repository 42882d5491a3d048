package engine

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/events"
)

// only refuses filters other than names.
func (f Filters) only(names ...string) error {
	for name := range f {
		if !slices.Contains(names, name) {
			slices.Sort(names)
			return errdefs.WithHint(unknownFilter(name), "the filters are "+strings.Join(names, ", "))
		}
	}
	return nil
}

// values returns the values asked for, sorted. A value mapped to false does
// not count, as in Docker's JSON.
func (f Filters) values(name string) []string {
	var list []string
	for v, on := range f[name] {
		if on {
			list = append(list, v)
		}
	}
	slices.Sort(list)
	return list
}

// exact says whether v is among the values, or there are none.
func (f Filters) exact(name, v string) bool {
	list := f.values(name)
	return len(list) == 0 || slices.Contains(list, v)
}

// match says whether one of the values is v, or is a regular expression v
// matches, or there are none.
func (f Filters) match(name, v string) bool {
	list := f.values(name)
	if len(list) == 0 {
		return true
	}
	return slices.ContainsFunc(list, func(pattern string) bool {
		if pattern == v {
			return true
		}
		re, err := regexp.Compile(pattern)
		return err == nil && re.MatchString(v)
	})
}

// labels says whether all the label filters hold: key, or key=value. Those of
// label! must not hold.
func (f Filters) labels(have map[string]string) bool {
	holds := func(want string) bool {
		k, v, withValue := strings.Cut(want, "=")
		got, there := have[k]
		return there && (!withValue || got == v)
	}
	for _, want := range f.values("label") {
		if !holds(want) {
			return false
		}
	}
	return !slices.ContainsFunc(f.values("label!"), holds)
}

// boolean reads a true/false filter.
func (f Filters) boolean(name string, unset bool) (bool, error) {
	list := f.values(name)
	if len(list) == 0 {
		return unset, nil
	}
	if len(list) > 1 {
		return false, invalidf("invalid filter '%s': both true and false", name)
	}
	v, err := strconv.ParseBool(list[0])
	if err != nil {
		return false, badFilterValue(name, list[0], errdefs.ErrInvalid)
	}
	return v, nil
}

// until reads the prune filter: a time stamp, or a duration before now.
func (f Filters) until(now time.Time) (time.Time, error) {
	list := f.values("until")
	switch len(list) {
	case 0:
		return time.Time{}, nil
	case 1:
	default:
		return time.Time{}, invalidf("more than one until filter specified")
	}
	if d, err := time.ParseDuration(list[0]); err == nil {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, list[0]); err == nil {
		return t, nil
	}
	sec, err := strconv.ParseFloat(list[0], 64)
	if err != nil {
		return time.Time{}, badFilterValue("until", list[0], errdefs.ErrInvalid)
	}
	return time.Unix(0, int64(sec*1e9)), nil
}

// eventFilter is what a subscriber wants to see.
type eventFilter struct{ f Filters }

func newEventFilter(f Filters) (*eventFilter, error) {
	return &eventFilter{f}, f.only("container", "daemon", "event", "image", "label", "label!", "network", "scope", "type", "volume", "plugin")
}

func (m *eventFilter) passes(msg *events.Message) bool {
	return m.action(msg.Action) &&
		m.f.exact("type", string(msg.Type)) &&
		m.f.exact("scope", msg.Scope) &&
		m.actor(events.ContainerEventType, "container", msg) &&
		m.actor(events.NetworkEventType, "network", msg) &&
		m.actor(events.VolumeEventType, "volume", msg) &&
		m.actor(events.PluginEventType, "plugin", msg) &&
		m.actor(events.DaemonEventType, "daemon", msg) &&
		m.image(msg) &&
		m.f.labels(msg.Actor.Attributes)
}

// action compares with and without what follows the colon of exec_create and
// its like.
func (m *eventFilter) action(a events.Action) bool {
	head, _, _ := strings.Cut(string(a), ":")
	return m.f.exact("event", string(a)) || m.f.exact("event", head)
}

// actor compares id, id prefix and name; a filter on one kind hides the others.
func (m *eventFilter) actor(kind events.Type, name string, msg *events.Message) bool {
	list := m.f.values(name)
	if len(list) == 0 {
		return true
	}
	if msg.Type != kind {
		return false
	}
	return slices.ContainsFunc(list, func(want string) bool {
		return want == msg.Actor.ID || want == msg.Actor.Attributes["name"] ||
			len(want) >= 4 && strings.HasPrefix(msg.Actor.ID, want)
	})
}

// image passes events of the image and of containers made from it.
func (m *eventFilter) image(msg *events.Message) bool {
	list := m.f.values("image")
	if len(list) == 0 {
		return true
	}
	name := msg.Actor.Attributes["image"]
	if msg.Type == events.ImageEventType {
		name = msg.Actor.Attributes["name"]
	}
	return slices.ContainsFunc(list, func(want string) bool {
		return want == name || want == withoutTag(name) || msg.Type == events.ImageEventType && want == msg.Actor.ID
	})
}

// withoutTag cuts the tag or digest off a reference. A colon before the last
// slash belongs to the registry's port.
func withoutTag(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}
