package keeper

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// checkIdle starts or stops the clock at whose end the keeper ends itself. It
// is called whenever something has ended.
func (s *server) checkIdle() {
	if s.options.Idle < 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch busy := s.busyLocked(); {
	case busy && s.idle != nil:
		s.idle.Stop()
		s.idle = nil
	case !busy && s.idle == nil:
		s.idle = time.AfterFunc(s.options.Idle, s.endIfIdle)
	}
}

// busyLocked says whether a process runs or a client is connected.
func (s *server) busyLocked() bool {
	if len(s.conns) > 0 || s.closing {
		return true
	}
	for _, p := range s.processes {
		if !p.currentStatus().Exited {
			return true
		}
	}
	return false
}

// endIfIdle ends the keeper unless something has come up. A client that is
// about to look for a keeper has either connected before the door was locked,
// which is seen here, or finds the keeper gone.
func (s *server) endIfIdle() {
	s.mu.Lock()
	s.idle = nil
	s.mu.Unlock()
	door, err := s.place.lockDoor(context.Background())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // its directory was removed: nobody can look for it
	}
	if err != nil {
		s.log.Error("end of an idle keeper", "cause", err)
		return
	}
	s.mu.Lock()
	busy := s.busyLocked()
	if !busy {
		s.closing = true
	}
	s.mu.Unlock()
	if busy {
		door.Close() // of none it fails
		return
	}
	s.quit <- door
}
