package network

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// holder is a process that has a socket.
type holder struct {
	name string
	pid  int
}

// portHolder finds a process of the host that has the port bound. It serves a
// hint only: whatever fails, nobody is named.
func portHolder(proto uint8, port uint16) (holder, bool) {
	inodes := map[string]bool{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, s := range localSockets(proto, family) {
			if s.ID.SourcePort == port && s.INode != 0 {
				inodes[fmt.Sprintf("socket:[%d]", s.INode)] = true
			}
		}
	}
	if len(inodes) == 0 {
		return holder{}, false
	}
	return findHolder(inodes)
}

// localSockets lists sockets that wait for a peer.
func localSockets(proto, family uint8) []*netlink.Socket {
	const tcpListen = 10 // enum in net/tcp_states.h
	if proto == unix.IPPROTO_UDP {
		all, err := netlink.SocketDiagUDP(family)
		if err != nil {
			return nil
		}
		return all
	}
	all, err := netlink.SocketDiagTCP(family)
	if err != nil {
		return nil
	}
	var listening []*netlink.Socket
	for _, s := range all {
		if s.State == tcpListen {
			listening = append(listening, s)
		}
	}
	return listening
}

func findHolder(inodes map[string]bool) (holder, bool) {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return holder{}, false
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !inodes[target] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue
		}
		return holder{name: strings.TrimSpace(string(name)), pid: pid}, true
	}
	return holder{}, false
}
