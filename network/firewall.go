package network

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/berth-containers/berth/fault"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// publish makes the lease's ports reachable, and sees to it that the firewall is
// as it should be.
func (s *Store) publish(l *lease) error {
	s.fw.Lock()
	defer s.fw.Unlock()
	if err := s.healFirewall(); err != nil {
		return err
	}
	if len(l.Ports) == 0 {
		return nil
	}
	if err := s.changePorts(l, (*nftables.Conn).SetAddElements); err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	fault.Here(fault.Published)
	return s.forgetFlows(l)
}

// unpublish is publish's reverse. Ports that are not published are no error.
func (s *Store) unpublish(l *lease) error {
	if len(l.Ports) == 0 {
		return nil
	}
	s.fw.Lock()
	defer s.fw.Unlock()
	l.gone = true // for a rebuild
	if err := s.changePorts(l, (*nftables.Conn).SetDeleteElements); err != nil {
		return fmt.Errorf("unpublish ports: %w", err)
	}
	fault.Here(fault.Unpublished)
	return s.forgetFlows(l)
}

// healFirewall builds our rules anew when somebody else changed the host's
// firewall since we last did: a reload of the host's own rules often flushes
// everybody's, and Docker, once started, drops what its chains do not accept.
func (s *Store) healFirewall() error {
	now, err := s.readGeneration()
	if err != nil || now == s.generation {
		return err
	}
	return s.rebuildLocked()
}

// readGeneration returns the number of transactions the namespace's firewall
// has seen, NFTA_GEN_ID.
func (s *Store) readGeneration() (uint32, error) {
	msgs, err := s.netfilter.do(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0,
		&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	if err != nil || len(msgs) != 1 || len(msgs[0]) < nl.SizeofNfgenmsg {
		return 0, fmt.Errorf("read firewall generation: %d answers: %w", len(msgs), err)
	}
	attrs, err := nl.ParseRouteAttrAsMap(msgs[0][nl.SizeofNfgenmsg:])
	if err != nil {
		return 0, fmt.Errorf("read firewall generation: %w", err)
	}
	id := attrs[unix.NFTA_GEN_ID].Value
	if len(id) != 4 {
		return 0, fmt.Errorf("read firewall generation: %d bytes", len(id))
	}
	return binary.BigEndian.Uint32(id), nil
}

// changePorts puts the lease's ports into the maps, or takes them out, in one
// transaction. When the table is not as we left it (flushed by an administrator, half a
// Connect) it is made anew from the leases.
func (s *Store) changePorts(l *lease, change func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	c, err := s.firewall()
	if err != nil {
		return err
	}
	t := newTable(s.opts.BridgeLink, s.bridge.subnet)
	byAddr, byPort := t.elements(l)
	if len(byAddr) > 0 {
		err = change(c, t.byAddr, byAddr)
	}
	if len(byPort) > 0 {
		err = errors.Join(err, change(c, t.byPort, byPort))
	}
	if err != nil {
		return s.abandon(c, err)
	}
	err = s.commit(c)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		return s.rebuildLocked()
	}
	return err
}

// rebuildFirewall replaces the table as a whole in one transaction: no packet
// sees half of it, and connections go on, as the kernel keeps their translations apart.
func (s *Store) rebuildFirewall() error {
	s.fw.Lock()
	defer s.fw.Unlock()
	return s.rebuildLocked()
}

func (s *Store) rebuildLocked() error {
	c, err := s.firewall()
	if err != nil {
		return err
	}
	if s.generation, err = s.readGeneration(); err != nil {
		return err
	}
	t := newTable(s.opts.BridgeLink, s.bridge.subnet)
	var byAddr, byPort []nftables.SetElement
	s.mu.Lock()
	for _, l := range s.leases {
		if l.gone {
			continue
		}
		a, p := t.elements(l)
		byAddr, byPort = append(byAddr, a...), append(byPort, p...)
	}
	s.mu.Unlock()
	if err := errors.Join(t.add(c, byAddr, byPort), addDockerRules(c, s.opts.BridgeLink)); err != nil {
		return fmt.Errorf("build table %s: %w", t.table.Name, s.abandon(c, err))
	}
	if err := s.commit(c); err != nil {
		return fmt.Errorf("load table %s: %w", t.table.Name, err)
	}
	return nil
}

// firewall returns the Store's nftables connection. It stays open because
// closing it waits, some 10 ms, until the kernel has freed what its last
// transaction deleted.
func (s *Store) firewall() (*nftables.Conn, error) {
	if s.nft != nil {
		return s.nft, nil
	}
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	s.nft = c
	return c, nil
}

// commit sends the transaction. After an error the connection is given up, as
// answers to the other messages of the transaction may be left in it.
func (s *Store) commit(c *nftables.Conn) error {
	if err := c.Flush(); err != nil {
		return s.abandon(c, err)
	}
	now, err := s.readGeneration()
	if err != nil {
		return err
	}
	if now == s.generation+1 { // else somebody's transaction came in between: heal next time
		s.generation = now
	}
	return nil
}

// abandon closes the connection with what is queued in it and returns err.
func (s *Store) abandon(c *nftables.Conn, err error) error {
	s.nft = nil
	return errors.Join(err, c.CloseLasting())
}

// deleteTable removes the table and our rules in Docker's; what is not there is
// no error.
func deleteTable(name string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	t := &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
	c.AddTable(t) // makes the deletion idempotent
	c.DelTable(t)
	if err := deleteDockerRules(c, name); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete table %s: %w", name, err)
	}
	return nil
}
