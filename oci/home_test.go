package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nme:x:1000:1000::/home/me:/bin/sh\nnone:x:7:7:::/bin/sh\n"

func TestHome(t *testing.T) {
	needRoot(t)
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "passwd"), []byte("me:x:1000:1000::/other:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bind := func(source, dest string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Source: source, Options: []string{"bind", "ro"}})
		}
	}
	for _, c := range []struct {
		name, want string
		image      func(etc string) error
		set        func(*specs.Spec)
	}{
		{"the user's", "/home/me", nil, nil},
		{"root's", "/root", nil, func(s *specs.Spec) { s.Process.User.UID = 0 }},
		{"of nobody known", "/", nil, func(s *specs.Spec) { s.Process.User.UID = 4711 }},
		{"of a user without", "/", nil, func(s *specs.Spec) { s.Process.User.UID = 7 }},
		{"given", "/x", nil, func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "HOME=/x") }},
		{"given as empty", "/home/me", nil, func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "HOME=") }},
		{"from a bound file", "/other", nil, bind(filepath.Join(other, "passwd"), "/etc/passwd")},
		{"from a bound directory", "/other", nil, bind(other, "/etc")},
		{"from no file", "/", func(etc string) error { return os.Remove(etc + "/passwd") }, nil},
		{"from a link, inside", "/home/me", func(etc string) error {
			if err := os.Rename(etc+"/passwd", etc+"/real"); err != nil {
				return err
			}
			return os.Symlink("/../../etc/real", etc+"/passwd")
		}, nil},
		{"from a link, not outside", "/", func(etc string) error {
			if err := os.Remove(etc + "/passwd"); err != nil {
				return err
			}
			return os.Symlink(filepath.Join(other, "passwd"), etc+"/passwd")
		}, nil},
		{"from a pipe nobody writes to", "/", func(etc string) error {
			if err := os.Remove(etc + "/passwd"); err != nil {
				return err
			}
			return unix.Mkfifo(etc+"/passwd", 0o666)
		}, nil},
		{"from a device", "/", func(etc string) error {
			if err := os.Remove(etc + "/passwd"); err != nil {
				return err
			}
			return unix.Mknod(etc+"/passwd", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) // endless zeros
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := rootfs(t)
			etc := filepath.Join(root, "etc")
			if err := os.WriteFile(etc+"/passwd", []byte(passwd), 0o644); err != nil {
				t.Fatal(err)
			}
			if c.image != nil {
				if err := c.image(etc); err != nil {
					t.Fatal(err)
				}
			}
			s := specFor(root, "sh", "-c", "echo $HOME")
			s.Process.User.UID = 1000
			if c.set != nil {
				c.set(s)
			}
			if got := mustRun(t, s); got != c.want {
				t.Errorf("init: %q, want %q", got, c.want)
			}
			sleeper := startSleeper(t, func(running *specs.Spec) {
				running.Root.Path, running.Process.User = s.Root.Path, s.Process.User
				running.Process.Env, running.Mounts = s.Process.Env, s.Mounts
			})
			if got, _, err := sleeper.exec(sleeper.process("sh", "-c", "echo $HOME")); err != nil || got != c.want {
				t.Errorf("exec: %v, %q, want %q", err, got, c.want)
			}
		})
	}
}

func TestHomeIsAddedOnce(t *testing.T) {
	needRoot(t)
	s := specFor(rootfs(t), "env")
	before := strings.Join(s.Process.Env, " ")
	for range 2 {
		if got := strings.Count(mustRun(t, s), "HOME="); got != 1 {
			t.Errorf("HOME is there %d times", got)
		}
	}
	if after := strings.Join(s.Process.Env, " "); after != before {
		t.Errorf("the specification has %q now", after)
	}
}
