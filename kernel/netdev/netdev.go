// Package netdev moves network devices of the host into another network
// namespace: the few messages of route netlink that takes.
package netdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// CheckName refuses what the kernel does not take for a device's name
// (dev_valid_name). pattern allows the %d of a name the kernel completes.
func CheckName(name string, pattern bool) error {
	bad := name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r\x00")
	rest := name
	if pattern {
		rest = strings.Replace(name, "%d", "", 1)
	}
	if bad || strings.Contains(rest, "%") {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%q is no name of a network device", name))
	}
	return nil
}

// Move moves a device of the caller's network namespace into another, under a
// name that must be free there; one with %d is completed by the kernel. The
// device keeps its permanent addresses of global scope, which the kernel would
// take from it, and is set up. When it cannot be had ready there it is brought
// back.
func Move(name, newName string, netns *os.File) error {
	here, err := open()
	if err != nil {
		return err
	}
	defer here.close()
	there, err := openIn(netns)
	if err != nil {
		return err
	}
	defer there.close()
	index, err := here.index(name)
	if err != nil {
		return err
	}
	if _, err := there.index(newName); err == nil {
		return errdefs.As(errdefs.ErrConflict, fmt.Errorf("the network namespace has a device %s already", newName))
	}
	addresses, err := here.addresses(index)
	if err != nil {
		return err
	}
	before, err := there.indexes()
	if err != nil {
		return err
	}
	if err := here.send(index, newName, netns); err != nil {
		return err
	}
	if err := there.receive(before, addresses); err != nil {
		return errors.Join(err, bringBack(there, before, name))
	}
	return nil
}

// index finds a device.
func (c *conn) index(name string) (uint32, error) {
	found, err := c.ask(unix.RTM_GETLINK, 0, addAttribute(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_IFNAME, append([]byte(name), 0)))
	if errors.Is(err, unix.ENODEV) || err == nil && len(found) == 0 {
		return 0, errdefs.As(errdefs.ErrNotFound, fmt.Errorf("no network device %s: %w", name, unix.ENODEV))
	}
	if err != nil {
		return 0, fmt.Errorf("look for network device %s: %w", name, err)
	}
	return binary.NativeEndian.Uint32(found[0].payload[4:]), nil
}

// indexes lists all devices.
func (c *conn) indexes() (map[uint32]bool, error) {
	links, err := c.ask(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	all := map[uint32]bool{}
	for _, l := range links {
		all[binary.NativeEndian.Uint32(l.payload[4:])] = true
	}
	return all, nil
}

// addresses are a device's permanent addresses of global scope, as requests to
// add them; what names the device is left out.
func (c *conn) addresses(index uint32) ([][]byte, error) {
	list, err := c.ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var keep [][]byte
	for _, m := range list {
		if len(m.payload) < unix.SizeofIfAddrmsg || binary.NativeEndian.Uint32(m.payload[4:]) != index {
			continue
		}
		have := attributes(m.payload[unix.SizeofIfAddrmsg:])
		flags := uint32(m.payload[2])
		if f := have[unix.IFA_FLAGS]; len(f) == 4 {
			flags = binary.NativeEndian.Uint32(f)
		}
		if scope := m.payload[3]; flags&unix.IFA_F_PERMANENT == 0 || scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		req := append(bytes.Clone(m.payload[:4]), 0, 0, 0, 0)
		req[2] = 0
		for _, kind := range []uint16{unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_BROADCAST, unix.IFA_RT_PRIORITY} {
			if v, ok := have[kind]; ok {
				req = addAttribute(req, kind, v)
			}
		}
		flags &= unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN | unix.IFA_F_HOMEADDRESS
		keep = append(keep, addAttribute(req, unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, flags|unix.IFA_F_NODAD)))
	}
	return keep, nil
}

func link(index, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// send moves the device, in one act with its new name.
func (c *conn) send(index uint32, newName string, netns *os.File) error {
	req := link(index, 0, 0)
	req = addAttribute(req, unix.IFLA_IFNAME, append([]byte(newName), 0))
	req = addAttribute(req, unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(netns.Fd())))
	if _, err := c.ask(unix.RTM_NEWLINK, 0, req); err != nil {
		return fmt.Errorf("move network device to the namespace as %s: %w", newName, err)
	}
	return nil
}

// arrived is the index of the device that was not there before: it may have
// been given a new one.
func (c *conn) arrived(before map[uint32]bool) (uint32, error) {
	now, err := c.indexes()
	if err != nil {
		return 0, err
	}
	for index := range now {
		if !before[index] {
			return index, nil
		}
	}
	return 0, fmt.Errorf("the network device is gone: %w", unix.ENODEV)
}

// receive gives the arrived device its addresses and sets it up.
func (c *conn) receive(before map[uint32]bool, addresses [][]byte) error {
	index, err := c.arrived(before)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		binary.NativeEndian.PutUint32(a[4:], index)
		if _, err := c.ask(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a); err != nil {
			return fmt.Errorf("add address to the moved network device: %w", err)
		}
	}
	if _, err := c.ask(unix.RTM_NEWLINK, 0, link(index, unix.IFF_UP, unix.IFF_UP)); err != nil {
		return fmt.Errorf("set the moved network device up: %w", err)
	}
	return nil
}

// bringBack moves the device to the caller's namespace again.
func bringBack(there *conn, before map[uint32]bool, name string) error {
	index, err := there.arrived(before)
	if err != nil {
		return err
	}
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	return there.send(index, name, home)
}
