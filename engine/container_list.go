package engine

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// ContainerList lists containers, newest first.
func (e *Engine) ContainerList(ctx context.Context, opt ListOptions) ([]container.Summary, error) {
	q, err := e.newListQuery(ctx, &opt)
	if err != nil {
		return nil, err
	}
	names := e.imageNames(ctx)
	list := []container.Summary{}
	for _, c := range e.containers.all() {
		rec, health := c.snapshot(), c.healthNow()
		if rec.State.Status == stateCreating || !q.wants(rec, health) {
			continue
		}
		s := e.summarize(rec, health, names)
		if opt.Size {
			if s.SizeRw, s.SizeRootFs, err = e.containerSizes(ctx, rec); err != nil {
				return nil, err
			}
		}
		list = append(list, s)
		if opt.Limit > 0 && len(list) == opt.Limit {
			break
		}
	}
	return list, nil
}

// summarize is one line of a list.
func (e *Engine) summarize(rec *record, health *container.Health, names map[string]bool) container.Summary {
	s := container.Summary{
		ID: rec.ID, Names: []string{"/" + rec.Name}, Image: rec.Config.Image, ImageID: rec.ImageID.String(),
		ImageManifestDescriptor: rec.Manifest, Command: commandText(rec), Created: rec.Created.Unix(),
		Ports: portSummaries(rec), Labels: rec.Config.Labels, State: rec.State.shown(), Status: statusText(&rec.State, health, time.Now()), Health: summarizeHealth(health),
		NetworkSettings: &container.NetworkSettingsSummary{Networks: e.endpointSettings(rec)}, Mounts: mountPoints(rec),
	}
	s.HostConfig.NetworkMode = string(rec.HostConfig.NetworkMode)
	s.HostConfig.Annotations = rec.HostConfig.Annotations
	if !names[rec.ImageID.String()+" "+familiar(rec.Config.Image)] {
		s.Image = shownImage(rec) // the name has moved on to another image
	}
	return s
}

// shownImage is how a list names an image that the given name does not mean
// any more: by id, as Docker does.
func shownImage(rec *record) string {
	if strings.HasPrefix(rec.ImageID.String(), rec.Config.Image) || strings.HasPrefix(rec.ImageID.Encoded(), rec.Config.Image) {
		return rec.Config.Image
	}
	return rec.ImageID.String()
}

// commandText is the command as lists show it: quoted where need be.
func commandText(rec *record) string {
	var parts []string
	for _, a := range append([]string{rec.Path}, rec.Args...) {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		parts = append(parts, a)
	}
	return strings.Join(parts, " ")
}

// statusText is the state as lists show it.
func statusText(s *lifeState, health *container.Health, now time.Time) string {
	since := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch s.Status {
	case stateRunning:
		return "Up " + since(s.StartedAt) + healthText(health)
	case statePaused:
		return "Up " + since(s.StartedAt) + " (Paused)"
	case stateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, since(s.FinishedAt))
	case stateRemoving:
		return "Removal In Progress"
	case stateDead:
		return "Dead"
	}
	if s.shown() == stateCreated || s.FinishedAt.IsZero() {
		return "Created"
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, since(s.FinishedAt))
}

// listQuery is a list's filters, read.
type listQuery struct {
	f             Filters
	all           bool
	before, since time.Time
	exited        []int
	ancestors     map[string]bool // image ids; nil: any
	publish       []portFilter
	expose        []portFilter
}

// newListQuery checks the filters. Filters on state and a limit include those
// that do not run.
func (e *Engine) newListQuery(ctx context.Context, opt *ListOptions) (*listQuery, error) {
	f := opt.Filters
	err := f.only("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation",
		"label", "label!", "name", "network", "publish", "since", "status", "volume")
	if err != nil {
		return nil, err
	}
	q := &listQuery{f: f, all: opt.All || opt.Limit > 0 || len(f.values("status")) > 0}
	for _, v := range f.values("status") {
		if err := container.ValidateContainerState(container.ContainerState(v)); err != nil {
			return nil, badFilterValue("status", v, errdefs.As(errdefs.ErrInvalid, err))
		}
	}
	for _, v := range f.values("health") {
		if err := container.ValidateHealthStatus(container.HealthStatus(v)); err != nil {
			return nil, badFilterValue("health", v, errdefs.As(errdefs.ErrInvalid, err))
		}
	}
	for _, v := range f.values("exited") {
		code, err := strconv.Atoi(v)
		if err != nil {
			return nil, badFilterValue("exited", v, errdefs.As(errdefs.ErrInvalid, err))
		}
		q.exited = append(q.exited, code)
	}
	for name, to := range map[string]*time.Time{"before": &q.before, "since": &q.since} {
		for _, ref := range f.values(name) {
			c, err := e.containers.get(ref)
			if err != nil {
				return nil, err
			}
			*to = c.snapshot().Created
		}
	}
	if q.publish, err = portFilters(f, "publish"); err != nil {
		return nil, err
	}
	if q.expose, err = portFilters(f, "expose"); err != nil {
		return nil, err
	}
	q.ancestors = e.ancestors(ctx, f)
	return q, nil
}

// ancestors are the images named by the ancestor filter and those built on
// them: whose layers begin with theirs.
func (e *Engine) ancestors(ctx context.Context, f Filters) map[string]bool {
	refs := f.values("ancestor")
	if len(refs) == 0 {
		return nil
	}
	ids := map[string]bool{}
	all, err := e.images.List(ctx)
	if err != nil {
		return ids
	}
	for _, ref := range refs {
		base, err := e.images.Get(ctx, ref)
		if err != nil {
			continue
		}
		for _, img := range all {
			if len(img.Layers) < len(base.Layers) {
				continue
			}
			if n := len(base.Layers); img.ID == base.ID || n > 0 && img.Layers[n-1].ChainID == base.Layers[n-1].ChainID {
				ids[img.ID.String()] = true
			}
		}
	}
	return ids
}

// wants says whether a container passes.
func (q *listQuery) wants(rec *record, health *container.Health) bool {
	f, st := q.f, &rec.State
	running := st.active() || st.Status == stateRestarting
	switch {
	case !q.all && !running,
		!q.before.IsZero() && !rec.Created.Before(q.before),
		!q.since.IsZero() && !rec.Created.After(q.since),
		!f.exact("status", string(st.shown())),
		!f.match("id", rec.ID),
		!f.match("name", rec.Name) && !f.match("name", "/"+rec.Name),
		!f.labels(rec.Config.Labels),
		!f.exact("health", string(summarizeHealth(health).Status)), !f.exact("is-task", "false"), !f.exact("isolation", ""),
		q.ancestors != nil && !q.ancestors[rec.ImageID.String()],
		len(q.exited) > 0 && (running || st.FinishedAt.IsZero() || !slices.Contains(q.exited, st.ExitCode)):
		return false
	}
	return q.network(rec) && q.volume(rec) && matchPorts(q.publish, rec, true) && matchPorts(q.expose, rec, false)
}

func (q *listQuery) network(rec *record) bool {
	want := q.f.values("network")
	if len(want) == 0 {
		return true
	}
	id := ""
	if rec.Attached != nil {
		id = rec.Attached.NetworkID
	}
	return slices.Contains(want, rec.HostConfig.NetworkMode.NetworkName()) || id != "" && slices.Contains(want, id)
}

func (q *listQuery) volume(rec *record) bool {
	want := q.f.values("volume")
	if len(want) == 0 {
		return true
	}
	return slices.ContainsFunc(rec.Mounts, func(m mountPoint) bool {
		return slices.Contains(want, m.Name) || slices.Contains(want, m.Source) || slices.Contains(want, m.Destination)
	})
}

// portFilter is a range of ports of one protocol.
type portFilter struct{ network.PortRange }

func portFilters(f Filters, name string) ([]portFilter, error) {
	var list []portFilter
	for _, v := range f.values(name) {
		r, err := network.ParsePortRange(v)
		if err != nil {
			return nil, badFilterValue(name, v, errdefs.As(errdefs.ErrInvalid, err))
		}
		list = append(list, portFilter{r})
	}
	return list, nil
}

// matchPorts says whether the container publishes (on the host) or exposes a
// port of one of the ranges.
func matchPorts(filters []portFilter, rec *record, publish bool) bool {
	if len(filters) == 0 {
		return true
	}
	return slices.ContainsFunc(filters, func(f portFilter) bool {
		in := func(n uint16, proto network.IPProtocol) bool {
			return proto == f.Proto() && n >= f.Start() && n <= f.End()
		}
		if !publish {
			for p := range rec.Config.ExposedPorts {
				if in(p.Num(), p.Proto()) {
					return true
				}
			}
			return false
		}
		return slices.ContainsFunc(portSummaries(rec), func(p container.PortSummary) bool {
			return p.PublicPort != 0 && in(p.PublicPort, network.IPProtocol(p.Type))
		})
	})
}
