// Package audit is what the parts of the engine say when they compare their
// records with the kernel and the disk.
package audit

import "context"

// Finding is one thing that is not as the records say.
type Finding struct {
	// Object names it: "container web", "link veth3fa01c2", "cgroup /berth/3fa0…".
	Object string
	// Problem is what is wrong, a clause: "its process is gone".
	Problem string
	// Remedy is what mends it: by Repair, or by a person.
	Remedy string
	// Repair mends it, and says what it has done. It looks again before it acts
	// and removes nothing that a user has made. Nil: only a person can mend it.
	Repair func(context.Context) (did string, err error)
}

// Findings are collected by those who look.
type Findings []Finding

// Add adds one; its arguments are [Finding]'s fields.
func (fs *Findings) Add(object, problem, remedy string, repair func(context.Context) (did string, err error)) {
	*fs = append(*fs, Finding{Object: object, Problem: problem, Remedy: remedy, Repair: repair})
}
