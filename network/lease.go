package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// lease is what a container holds: its attachment, on disk in a file of its own
// before anything is made in the kernel, and the sockets of its published ports.
type lease struct {
	Attachment
	Created time.Time
	ports   []reservation
	gone    bool // its ports are being unpublished; guarded by Store.fw
}

func (l *lease) releasePorts() {
	for _, r := range l.ports {
		r.release()
	}
	l.ports = nil
}

func (s *Store) leasePath(id string) string {
	return filepath.Join(s.opts.RunDir, id+leaseSuffix)
}

const leaseSuffix = ".lease"

// loadLeases reads the leases that an earlier Store left.
func (s *Store) loadLeases() error {
	entries, err := os.ReadDir(s.opts.RunDir)
	if err != nil {
		return err
	}
	var newest time.Time
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), leaseSuffix)
		if !ok {
			continue
		}
		path := filepath.Join(s.opts.RunDir, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		l := &lease{}
		if err := json.Unmarshal(data, l); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if l.ContainerID != id || !l.IP.Is4() {
			return fmt.Errorf("read %s: not the lease of %s", path, id)
		}
		s.leases[id], s.used[l.IP] = l, id
		if l.Created.After(newest) {
			newest, s.cursor = l.Created, l.IP
		}
	}
	return nil
}

// take reserves the container's place: one lease per container, one container
// per address. It writes nothing to disk.
func (s *Store) take(l *lease, wanted netip.Addr, mac net.HardwareAddr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.leases[l.ContainerID]; ok {
		return errdefs.As(errdefs.ErrConflict, fmt.Errorf("container is connected to network %s already", Bridge))
	}
	var err error
	if wanted.IsValid() {
		l.IP, err = s.checkWanted(wanted)
	} else {
		l.IP, err = s.nextAddr()
	}
	if err != nil {
		return err
	}
	if l.MAC = mac.String(); len(mac) == 0 {
		l.MAC = macOf(l.IP).String()
	}
	s.leases[l.ContainerID], s.used[l.IP] = l, l.ContainerID
	return nil
}

func (s *Store) checkWanted(a netip.Addr) (netip.Addr, error) {
	a = a.Unmap()
	if !usable(s.bridge.subnet, s.bridge.gateway, a) {
		return a, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("address %s is not one for a container of %s", a, s.bridge.subnet))
	}
	if id, ok := s.used[a]; ok {
		free, err := s.reclaim(a, true)
		if free || err != nil {
			return a, err
		}
		return a, errdefs.As(errdefs.ErrConflict, fmt.Errorf("address %s is in use by container %s", a, id))
	}
	return a, nil
}

// nextAddr returns the address after the last one given, so that one that
// became free rests as long as the subnet allows.
func (s *Store) nextAddr() (netip.Addr, error) {
	subnet := s.bridge.subnet
	a := s.cursor
	if !a.IsValid() || !subnet.Contains(a) {
		a = subnet.Addr()
	}
	start := a
	for {
		if a = a.Next(); !subnet.Contains(a) {
			a = subnet.Addr()
		}
		_, taken := s.used[a]
		if taken {
			free, err := s.reclaim(a, false)
			if err != nil {
				return a, err
			}
			taken = !free
		}
		if !taken && usable(subnet, s.bridge.gateway, a) {
			s.cursor = a
			return a, nil
		}
		if a == start {
			return a, errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("no free address in %s: %d containers", subnet, len(s.used)))
		}
	}
}

// drop ends the lease of a container whose link is gone: ports, file, address, in
// this order, so that a crash in between leaves the address taken rather than
// given twice.
func (s *Store) drop(l *lease) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.forgetLocked(l); err != nil {
		return err
	}
	delete(s.used, l.IP)
	return nil
}

// depart ends the lease of a container whose link is still there. Its address
// stays taken until the link is gone, which is looked up when somebody wants the
// address and, for a few others, now.
func (s *Store) depart(l *lease) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.forgetLocked(l); err != nil {
		return err
	}
	for range min(2, len(s.departed)) { // more than come in, so the queue stays short
		first := s.departed[0]
		s.departed = s.departed[1:]
		if index, err := s.route.index(first.HostLink); err != nil || index != 0 {
			s.departed = append(s.departed, first)
			continue
		}
		delete(s.used, first.IP)
	}
	s.departed = append(s.departed, l)
	return nil
}

func (s *Store) forgetLocked(l *lease) error {
	l.releasePorts()
	if err := os.Remove(s.leasePath(l.ContainerID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove lease: %w", err)
	}
	fault.Here(fault.LeaseRemoved)
	if s.leases[l.ContainerID] == l {
		delete(s.leases, l.ContainerID)
	}
	return nil
}

// reclaim frees an address that a departed container held, by removing the
// container's link if need be. It reports whether the address is free now.
func (s *Store) reclaim(a netip.Addr, force bool) (bool, error) {
	i := slices.IndexFunc(s.departed, func(l *lease) bool { return l.IP == a })
	if i < 0 {
		return false, nil
	}
	link := s.departed[i].HostLink
	index, err := s.route.index(link)
	if err != nil {
		return false, err
	}
	if index != 0 {
		if !force {
			return false, nil
		}
		if err := s.route.deleteLink(link); err != nil {
			return false, err
		}
	}
	s.departed = slices.Delete(s.departed, i, i+1)
	delete(s.used, a)
	return true, nil
}

func (s *Store) lease(id string) (*lease, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.leases[id]
	return l, ok
}
