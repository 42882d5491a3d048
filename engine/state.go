package engine

import (
	"slices"
	"time"

	"github.com/berth-containers/berth/keeper"
	"github.com/moby/moby/api/types/container"
)

// state is where a container is in its life. The words are Docker's, but for
// creating and starting, which only the engine itself sees: a record found in
// one of them at Open belongs to an act that the engine did not live to finish.
type state = container.ContainerState

const (
	stateCreating   = state("creating")
	stateCreated    = container.StateCreated
	stateStarting   = state("starting")
	stateRunning    = container.StateRunning
	statePaused     = container.StatePaused
	stateRestarting = container.StateRestarting
	stateExited     = container.StateExited
	stateRemoving   = container.StateRemoving
	stateDead       = container.StateDead
)

// transitions lists, per state, the states that may follow.
//
//	creating ──► created ──► starting ──► running ◄──► paused
//	                ▲          │  ▲        │            │
//	                └─ failed ─┘  │        ▼            │
//	                              ├──── exited ◄────────┤
//	                              └─ restarting ◄───────┘
//	created, exited, restarting, dead ──► removing ──► (gone) or dead
var transitions = map[state][]state{
	stateCreating:   {stateCreated, stateRemoving},
	stateCreated:    {stateStarting, stateRemoving},
	stateStarting:   {stateRunning, stateCreated, stateExited, stateRestarting},
	stateRunning:    {statePaused, stateExited, stateRestarting},
	statePaused:     {stateRunning, stateExited, stateRestarting},
	stateRestarting: {stateStarting, stateExited, stateRemoving},
	stateExited:     {stateStarting, stateRemoving},
	stateRemoving:   {stateDead},
	stateDead:       {stateRemoving},
}

// allowed says whether to may follow from.
func allowed(from, to state) bool { return slices.Contains(transitions[from], to) }

// lifeState is the part of a record that changes as the container lives.
type lifeState struct {
	Status state
	// Pid is the init's pid in the host's pid namespace, 0 when it does not run.
	Pid        int       `json:",omitempty"`
	StartedAt  time.Time `json:",omitzero"`
	FinishedAt time.Time `json:",omitzero"`
	ExitCode   int
	OOMKilled  bool `json:",omitempty"`
	// Error is why the last start failed.
	Error string `json:",omitempty"`
	// intents are what an engine has begun and not finished.
	intents
	// Again says that the start in progress is one of the restart policy.
	Again bool `json:",omitempty"`
	// Stopped says that a user stopped it, so that the restart policy
	// unless-stopped does not bring it back.
	Stopped bool `json:",omitempty"`
	// Signal is the one that ended the last run, 0 when it ended by itself.
	Signal int `json:",omitempty"`
	// Sent are the last signals that were sent to this run, oldest first.
	Sent []sentSignal `json:",omitempty"`
	// Used is what the last run had used when it ended.
	Used *keeper.Used `json:",omitempty"`
}

// intents are acts of several steps that an engine has begun: were it killed in
// the middle, the next one would finish them, or undo what was to be temporary.
// They are cleared with the last step.
type intents struct {
	// Restart: it is to be stopped and started.
	Restart bool `json:",omitempty"`
	// Remove: it is to be killed and removed, RemoveVolumes: with its volumes.
	Remove        bool `json:",omitempty"`
	RemoveVolumes bool `json:",omitempty"`
	// Thaw: it is paused for as long as an engine is at work on it, no longer.
	Thaw bool `json:",omitempty"`
	// Apply: its limits have changed and the kernel may not know yet.
	Apply bool `json:",omitempty"`
}

// active says that the container has, or is about to have, a process.
func (s *lifeState) active() bool {
	return s.Status == stateStarting || s.Status == stateRunning || s.Status == statePaused
}

// shown is the state users see.
func (s *lifeState) shown() state {
	if s.Status != stateStarting && s.Status != stateCreating {
		return s.Status
	}
	switch {
	case s.Status == stateStarting && s.Again:
		return stateRestarting
	case s.StartedAt.IsZero():
		return stateCreated
	}
	return stateExited
}
