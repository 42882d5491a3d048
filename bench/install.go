package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
)

// peerPackages are Debian's packages for each program the benchmark uses; the
// second ones exist on later releases only, where they hold what the first ones
// held before.
var peerPackages = []struct{ program, name string }{
	{"/bin/busybox", "busybox-static"},
	{"runc", "runc"},
	{"crun", "crun"},
	{"podman", "podman"},
	{"conmon", "conmon"},
	{"/usr/lib/podman/netavark", "netavark"},
	{"containerd", "containerd"},
	{"dockerd", "docker.io"},
	{"docker", "docker-cli"},
}

// policy is the script that Debian's packages ask before they start a service
// (policy-rc.d(8)).
const policy = "/usr/sbin/policy-rc.d"

// installPeers installs what is missing. What cannot be installed is not
// compared, and the report says so.
func installPeers(ctx context.Context) {
	for _, p := range peerPackages {
		if _, err := exec.LookPath(p.program); err == nil {
			continue
		}
		progress("installing Debian's package %s", p.name)
		if err := installPackage(ctx, p.name); err != nil {
			progress("%s is not installed: %v", p.name, err)
		}
	}
}

// installPackage installs a package without starting its services: the
// host is to keep its network as it is.
func installPackage(ctx context.Context, name string) error {
	err := writeNew(policy, "#!/bin/sh\nexit 101\n")
	switch {
	case err == nil:
		defer os.Remove(policy)
	case !errors.Is(err, fs.ErrExist): // the administrator has a policy
		return err
	}
	cmd := exec.CommandContext(ctx, "demo/install-packages.sh", name)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// writeNew writes an executable file that is not there yet.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
