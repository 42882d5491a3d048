package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/berth-containers/berth/audit"
)

// CheckReport is what a check has found.
type CheckReport struct {
	// Checked says how much there was to look at: containers, images, networks.
	Checked map[string]int
	// Findings are sorted by object; empty when all is as it should be.
	Findings []CheckFinding
}

// CheckFinding is one thing that is not as the records say.
type CheckFinding struct {
	// Object names what it is about, Problem says what is wrong with it, Remedy
	// what mends it.
	Object, Problem, Remedy string
	// Repairable says that a repair can do it; else it is for a person to do.
	Repairable bool
	// Repaired is what a repair has done, empty when there was none.
	Repaired string `json:",omitempty"`
	// Error is why a repair did not succeed.
	Error string `json:",omitempty"`
}

// Check compares the records with the kernel (processes, cgroups, namespaces,
// links, firewall, mounts) and with the disk (images, layers, writable layers,
// volumes, files). With repair it mends what can be mended. It never ends a
// container that is as it should be, and removes nothing that a user has made.
//
// What it finds it looks at twice, so that what is just under way is not among it.
func (e *Engine) Check(ctx context.Context, repair bool) (*CheckReport, error) {
	found, err := e.look(ctx)
	if err == nil && len(found) > 0 {
		var again []audit.Finding
		again, err = e.look(ctx)
		found = inBoth(found, again)
	}
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	images, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	report := &CheckReport{Findings: []CheckFinding{}, Checked: map[string]int{
		"containers": len(e.containers.all()), "images": len(images), "networks": len(e.nets.List()),
	}}
	for _, f := range found {
		entry := CheckFinding{Object: f.Object, Problem: f.Problem, Remedy: f.Remedy, Repairable: f.Repair != nil}
		if repair && f.Repair != nil {
			did, err := f.Repair(ctx)
			if err != nil {
				entry.Error = err.Error()
			} else {
				entry.Repaired = did
			}
			e.log.Warn("repair", "object", f.Object, "problem", f.Problem, "did", did, "err", err)
		}
		report.Findings = append(report.Findings, entry)
	}
	return report, nil
}

// look asks all parts once.
func (e *Engine) look(ctx context.Context) ([]audit.Finding, error) {
	a := &auditor{e: e}
	err := errors.Join(a.containers(ctx), a.strays(ctx))
	nets, neterr := e.nets.Audit(e.holdsNetwork)
	aside, asideErr := e.setAside()
	images, imgerr := e.images.Audit(ctx, func(key string) bool { return aside[key] || e.known(key) })
	found := slices.Concat(a.found, nets, images, e.volumes.Audit())
	slices.SortStableFunc(found, func(x, y audit.Finding) int {
		return cmp.Or(cmp.Compare(x.Object, y.Object), cmp.Compare(x.Problem, y.Problem))
	})
	return found, errors.Join(err, neterr, asideErr, imgerr, ctx.Err())
}

// inBoth keeps of the second list what is in the first as well.
func inBoth(first, second []audit.Finding) []audit.Finding {
	return slices.DeleteFunc(second, func(f audit.Finding) bool {
		return !slices.ContainsFunc(first, func(g audit.Finding) bool { return f.Object == g.Object && f.Problem == g.Problem })
	})
}

// known says whether a container has the id, or is being made with it.
func (e *Engine) known(id string) bool {
	e.containers.mu.RLock()
	defer e.containers.mu.RUnlock()
	if e.containers.byID[id] != nil {
		return true
	}
	for _, holder := range e.containers.names {
		if holder == id {
			return true
		}
	}
	return false
}

// holdsNetwork says whether a container has, or is about to have, a process.
func (e *Engine) holdsNetwork(id string) bool {
	c, err := e.containers.get(id)
	return err == nil && c.id == id && c.snapshot().State.active()
}

// auditor collects findings.
type auditor struct {
	e     *Engine
	found audit.Findings
}
