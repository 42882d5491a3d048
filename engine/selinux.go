package engine

import (
	"errors"
	"fmt"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
)

// seLinuxLabels are a container's: what its processes run as, and what its
// files are.
type seLinuxLabels struct{ Process, Mount string }

// assignLabels gives a new container its SELinux labels: those the host's
// policy has for containers, changed by the request, with a pair of categories that
// no other container has. Who shares the host's processes has none; who shares
// another container's, that one's.
func (e *Engine) assignLabels(rec *record, sec *securityOptions) error {
	hc := rec.HostConfig
	options := sec.labels
	switch {
	case !e.host.seLinux:
		return nil
	case len(options) > 0:
	case hc.Privileged || hc.PidMode.IsHost() || hc.IpcMode.IsHost():
		options = []string{"disable"}
	case hc.IpcMode.IsContainer():
		return e.shareLabel(rec, hc.IpcMode.Container())
	case hc.PidMode.IsContainer():
		return e.shareLabel(rec, hc.PidMode.Container())
	}
	process, files, err := label.InitLabels(options)
	if err == nil {
		err = checkLabel(process)
	}
	if err != nil {
		selinux.ReleaseLabel(process)
		return errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("SELinux labels: %w", err)), "see --security-opt label=...")
	}
	rec.Labels = &seLinuxLabels{process, files}
	return nil
}

// checkLabel asks the kernel whether its policy knows the label.
func checkLabel(process string) error {
	if process == "" {
		return nil
	}
	if err := selinux.SecurityCheckContext(process); err != nil {
		return fmt.Errorf("the policy of this host does not know %s: %w", process, err)
	}
	return nil
}

// shareLabel gives a container the labels of another.
func (e *Engine) shareLabel(rec *record, id string) error {
	other, err := e.containers.get(id)
	if err != nil {
		return err
	}
	rec.Labels = other.snapshot().Labels
	return nil
}

// adoptLabels keeps a container's categories from being given to another. A
// container that shares another's has them twice.
func adoptLabels(l *seLinuxLabels) error {
	if l == nil {
		return nil
	}
	if err := selinux.ReserveLabelV2(l.Process); err != nil && !errors.Is(err, selinux.ErrMCSAlreadyExists) {
		return fmt.Errorf("SELinux label %s: %w", l.Process, err)
	}
	return nil
}

// releaseLabels gives the categories back, unless another container has them
// too.
func (e *Engine) releaseLabels(rec *record) {
	if rec.Labels == nil {
		return
	}
	for _, c := range e.containers.all() {
		if o := c.snapshot(); o.ID != rec.ID && o.Labels != nil && o.Labels.Process == rec.Labels.Process {
			return
		}
	}
	selinux.ReleaseLabel(rec.Labels.Process)
}

// labelFiles labels what the container gets of the host: the files the engine
// makes for it, its volumes, for all containers, and the binds that ask for it (z:
// for all containers, Z: for this one).
func labelFiles(rec *record, etc map[string]string) error {
	if rec.Labels == nil || rec.Labels.Mount == "" {
		return nil
	}
	var errs []error
	for _, path := range etc {
		errs = append(errs, label.SetFileLabel(path, rec.Labels.Mount))
	}
	for i := range rec.Mounts {
		m := &rec.Mounts[i]
		switch {
		case m.Type == mount.TypeVolume, hasOption(m.Mode, "z"):
			errs = append(errs, relabel(m.Source, rec.Labels.Mount, true))
		case hasOption(m.Mode, "Z"):
			errs = append(errs, relabel(m.Source, rec.Labels.Mount, false))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("label files for SELinux: %w", err)
	}
	return nil
}

// relabel labels a tree. The top comes last: when it has the label, so has all
// below it.
func relabel(path, files string, shared bool) error {
	want := files
	if shared {
		c, err := selinux.NewContext(files)
		if err != nil {
			return err
		}
		c["level"] = "s0"
		want = c.Get()
	}
	if now, err := selinux.FileLabel(path); err == nil && now == want {
		return nil
	}
	return label.Relabel(path, want, false)
}

// shown are the labels as inspect shows them.
func (l *seLinuxLabels) shown() (process, files string) {
	if l == nil {
		return "", ""
	}
	return l.Process, l.Mount
}

// policyKnowsContainers tells whether the host's policy has labels for
// containers (lxc_contexts).
func policyKnowsContainers() bool {
	process, _, err := label.InitLabels(nil)
	selinux.ReleaseLabel(process)
	return err == nil && process != ""
}
