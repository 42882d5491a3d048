package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/coreos/go-systemd/v22/activation"
)

// defaultGroup owns the sockets when no group is configured and it exists.
const defaultGroup = "berth"

// splitHost takes an address apart and refuses what must not be listened on.
func splitHost(host string) (network, address string, err error) {
	network, address, ok := strings.Cut(host, "://")
	switch {
	case !ok:
		return "", "", fmt.Errorf("host %q: want unix:///path or tcp://127.0.0.1:port", host)
	case network == "unix" && filepath.IsAbs(address):
		return network, filepath.Clean(address), nil
	case network == "unix":
		return "", "", fmt.Errorf("host %q: not an absolute path", host)
	case network != "tcp":
		return "", "", fmt.Errorf("host %q: unknown protocol %q, want unix or tcp", host, network)
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return "", "", fmt.Errorf("host %q: want an IP address and a port", host)
	}
	if !at.Addr().IsLoopback() {
		return "", "", errdefs.WithHint(fmt.Errorf("host %q: refused: whoever reached it would be root on this host; without TLS only loopback addresses are served", host),
			"forward the unix socket with ssh -L, or listen on 127.0.0.1")
	}
	return network, address, nil
}

// sockets are the daemon's listening sockets: those that systemd opened and
// those that are opened when the engine is ready.
type sockets struct {
	activated []net.Listener
	missing   []string // hosts, as configured
	group     int      // gid of unix sockets
	opened    []net.Listener
	paths     []string // of the unix sockets we made
}

// bindSockets takes over the sockets passed by systemd (LISTEN_FDS,
// sd_listen_fds(3)) and finds out which of the configured ones are still to be
// opened.
func bindSockets(cfg *config) (*sockets, error) {
	gid, err := socketGroup(cfg.Group)
	if err != nil {
		return nil, err
	}
	s := &sockets{group: gid}
	have := make(map[string]bool)
	for _, file := range activation.Files(true) {
		l, err := net.FileListener(file)
		err = errors.Join(err, file.Close())
		if err != nil {
			s.close()
			return nil, fmt.Errorf("take over socket %s from systemd: %w", file.Name(), err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // systemd goes on listening there
		}
		s.activated = append(s.activated, l)
		have[l.Addr().Network()+"://"+l.Addr().String()] = true
	}
	for _, host := range cfg.Hosts {
		network, address, err := splitHost(host)
		if err != nil {
			s.close()
			return nil, err
		}
		if !have[network+"://"+address] {
			s.missing = append(s.missing, network+"://"+address)
		}
	}
	return s, nil
}

// socketGroup is the gid for unix sockets.
func socketGroup(name string) (int, error) {
	wanted := name != ""
	if !wanted {
		name = defaultGroup
	}
	group, err := user.LookupGroup(name)
	if err != nil {
		if !wanted {
			return 0, nil
		}
		return 0, fmt.Errorf("group of the sockets: %w", err)
	}
	return strconv.Atoi(group.Gid)
}

// open opens the missing sockets and returns all of them. A unix socket is
// there for clients only now, when its daemon can answer.
func (s *sockets) open() ([]net.Listener, error) {
	all := slices.Clone(s.activated)
	for _, host := range s.missing {
		network, address, _ := strings.Cut(host, "://")
		var l net.Listener
		var err error
		if network == "unix" {
			l, err = s.openUnix(address)
		} else {
			l, err = net.Listen(network, address)
		}
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", host, err)
		}
		s.opened = append(s.opened, l)
		all = append(all, l)
	}
	return all, nil
}

// openUnix listens on a socket under a temporary name, gives it owner and mode
// and then its name, which may replace one left by a killed daemon: at no time
// can a client reach a socket that is open to all or that nobody listens on.
func (s *sockets) openUnix(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, errors.New("a file that is not a socket is in the way")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, err
	}
	temporary := path + "." + strconv.Itoa(os.Getpid())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chown(temporary, 0, s.group)
	if err == nil {
		err = os.Chmod(temporary, 0o660)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(temporary))
	}
	s.paths = append(s.paths, path)
	return l, nil
}

// names lists the addresses for the log.
func (s *sockets) names() []string {
	var names []string
	for _, l := range slices.Concat(s.activated, s.opened) {
		names = append(names, l.Addr().Network()+"://"+strings.TrimSuffix(l.Addr().String(), "."+strconv.Itoa(os.Getpid())))
	}
	return names
}

// close closes the sockets and removes the names we made.
func (s *sockets) close() {
	for _, l := range slices.Concat(s.activated, s.opened) {
		_ = l.Close() // the server has closed it before, unless it never served
	}
	for _, path := range s.paths {
		_ = os.Remove(path)
	}
}
