package oci

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// withHome gives a command HOME when its environment has none, or an empty
// one: the home directory the container's /etc/passwd names for the user, "/"
// when it names none. The specification does not ask for it, but runc and crun do
// so and engines rely on it.
func (c *compiler) withHome(env []string, uid uint32) []string {
	for i, e := range env {
		if home, ok := strings.CutPrefix(e, "HOME="); ok {
			if home != "" {
				return env
			}
			env = append(append([]string{}, env[:i]...), env[i+1:]...)
			break
		}
	}
	home := ""
	if c.in.host.passwd != nil {
		home = homeOf(c.in.host.passwd(c.passwdAt()), uid)
	}
	if home == "" {
		home = "/"
	}
	return append(env[:len(env):len(env)], "HOME="+home)
}

// passwdAt says where the container's /etc/passwd is: a path inside a
// directory, which is dir, or the one at root when dir is nil.
func (c *compiler) passwdAt() (dir *os.File, root, rel string) {
	if c.initPid != 0 {
		return nil, fmt.Sprintf("/proc/%d/root/", c.initPid), "etc/passwd"
	}
	dir, root, rel = c.in.rootfs, c.rootPath(), "etc/passwd"
	for i := range c.spec.Mounts { // of several the last counts
		m := &c.spec.Mounts[i]
		switch at := relative(m.Destination); {
		case !isBind(m):
		case at == "etc":
			dir, root, rel = nil, c.bindSource(m), "passwd"
		case at == "etc/passwd":
			dir, root, rel = nil, "/", c.bindSource(m)
		}
	}
	return dir, root, rel
}

// mostPasswd is as much of a passwd file as is read.
const mostPasswd = 1 << 20

// readPasswd reads a file of a container, nil when there is none. It is the
// image's to say what that name leads to: not out of the root, and what is no
// regular file is not opened, which may already do something.
func readPasswd(dir *os.File, root, rel string) []byte {
	at := -1
	if dir != nil {
		at = int(dir.Fd())
	} else {
		fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil
		}
		defer unix.Close(fd)
		at = fd
	}
	path, err := unix.Openat2(at, rel, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: inRoot})
	if err != nil {
		return nil
	}
	defer unix.Close(path)
	var st unix.Stat_t
	if unix.Fstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	b := make([]byte, min(st.Size, mostPasswd))
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil
	}
	return b[:n]
}

// homeOf finds a user's home directory (passwd(5)).
func homeOf(passwd []byte, uid uint32) string {
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.Lines(string(passwd)) {
		// name:password:uid:gid:comment:home:shell
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) >= 6 && f[2] == want {
			return f[5]
		}
	}
	return ""
}
