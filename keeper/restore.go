package keeper

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// restore takes over the records of an earlier keeper. A container without an
// exit record was running when that keeper was killed: its output goes nowhere
// and nobody is its parent, so what is left of it is killed.
func (s *server) restore() error {
	ids, err := s.records.containers()
	if err != nil {
		return err
	}
	var burials sync.WaitGroup
	slots := make(chan struct{}, burialsAtOnce)
	for _, id := range ids {
		execs, own, err := s.records.exits(id)
		if err != nil {
			// A record that cannot be read is as good as none.
			s.log.Error("exit record is lost", "container", id, "cause", err)
		}
		for _, status := range execs {
			s.remember(status)
		}
		if own != nil {
			s.remember(*own)
			continue
		}
		slots <- struct{}{}
		burials.Go(func() {
			defer func() { <-slots }()
			s.remember(*s.bury(id))
		})
	}
	burials.Wait()
	return nil
}

// burialsAtOnce bounds how many containers are ended at a time: one whose processes
// wait in the kernel takes seconds, and the next engine waits for all of them.
const burialsAtOnce = 16

// bury ends a container whose keeper was killed and records it as exited.
func (s *server) bury(id string) *Status {
	status := &Status{
		ContainerID: id, Exited: true, ExitCode: ExitCodeLost, ExitedAt: time.Now().UTC(),
		Error: "keeper was killed while the container ran",
	}
	if info, err := os.Stat(s.records.spec(id)); err == nil {
		status.StartedAt = info.ModTime().UTC()
	}
	spec, err := s.records.loadSpec(id)
	if err == nil && spec.Linux == nil {
		err = errors.New("spec has no linux section")
	}
	if err == nil {
		var used Used
		used, err = s.runtime.End(spec.Linux.CgroupsPath)
		status.OOMKilled, status.Used = used.OOMKills > 0, used
	}
	if err == nil && hasPoststop(spec) {
		s.runPoststop(id)
	}
	err = errors.Join(err, s.records.saveExit(status))
	if err != nil {
		status.Error = fmt.Sprintf("%s; %v", status.Error, err)
		s.log.Error("container of an earlier keeper", "container", id, "cause", err)
	}
	return status
}

// remember enters a process that has exited under an earlier keeper.
func (s *server) remember(status Status) {
	k := key{status.ContainerID, status.ExecID}
	done := make(chan struct{})
	close(done)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes[k] = &process{key: k, settled: done, done: done, status: status}
}
