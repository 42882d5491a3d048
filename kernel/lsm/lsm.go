// Package lsm tells which of the kernel's security modules are at work. What
// they are told is written by whoever starts a process: a module listens only to
// the process itself.
package lsm

import (
	"sync"

	"golang.org/x/sys/unix"
)

// AppArmor tells whether the kernel confines processes by AppArmor profiles.
func AppArmor() bool { return appArmor() }

// SELinux tells whether the kernel labels processes and files.
func SELinux() bool { return seLinux() }

// Asked once: neither comes or goes while the kernel runs.
var (
	appArmor = sync.OnceValue(func() bool {
		fd, err := unix.Open("/sys/module/apparmor/parameters/enabled", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return false
		}
		defer unix.Close(fd)
		var b [1]byte
		n, err := unix.Read(fd, b[:])
		return err == nil && n == 1 && b[0] == 'Y'
	})
	// The kernel makes the directory, and lets its file system be mounted there,
	// only with SELinux at work.
	seLinux = sync.OnceValue(func() bool {
		var st unix.Statfs_t
		return unix.Statfs("/sys/fs/selinux", &st) == nil && st.Type == unix.SELINUX_MAGIC
	})
)
