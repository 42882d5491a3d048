package main

import (
	"context"
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

// installPackage installs a package, without starting its services.
func installPackage(ctx context.Context, name string) error {
	cmd := exec.CommandContext(ctx, "demo/install-packages.sh", name)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}
