package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
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
	{"docker-registry", "docker-registry"},
	{"skopeo", "skopeo"},
	{"mmdebstrap", "mmdebstrap"},
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

// newestRunc is the candidate that is built from the newest release, as Debian's
// is some years old.
const newestRunc = "runc" + newestSuffix

// newestSuffix is what the names of programs built from their newest release end
// with.
const newestSuffix = "-new"

// newest is where buildNewest leaves the program; "" when it could not.
func (b *bench) newest() string {
	path := filepath.Join(b.stage.Work, newestRunc)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// buildNewest builds the newest runc, which wants the headers of libseccomp, into
// a directory.
func buildNewest(ctx context.Context, dir string) {
	progress("building the newest runc")
	for _, name := range []string{"gcc", "libc6-dev", "pkg-config", "libseccomp-dev"} {
		if err := installPackage(ctx, name); err != nil {
			progress("the newest runc is not compared: %s: %v", name, err)
			return
		}
	}
	cmd := exec.CommandContext(ctx, "go", "install", "-tags", "seccomp", "-ldflags", "-s -w", "github.com/opencontainers/runc@latest")
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=1", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		progress("the newest runc is not compared: %v\n%s", err, out)
		return
	}
	if err := os.Rename(filepath.Join(dir, "runc"), filepath.Join(dir, newestRunc)); err != nil {
		progress("the newest runc is not compared: %v", err)
	}
}

// buildNewestContainerd builds the newest containerd and its client into a
// directory.
func buildNewestContainerd(ctx context.Context, dir string) {
	progress("building the newest containerd")
	cmd := exec.CommandContext(ctx, "go", "install", "-tags", "no_btrfs", "-ldflags", "-s -w",
		"github.com/containerd/containerd/v2/cmd/containerd@latest", "github.com/containerd/containerd/v2/cmd/ctr@latest")
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		progress("the newest containerd is not compared: %v\n%s", err, out)
		return
	}
	for _, name := range []string{"containerd", "ctr"} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, name+newestSuffix)); err != nil {
			progress("the newest containerd is not compared: %v", err)
		}
	}
}

// installPackage installs a package, without starting its services.
func installPackage(ctx context.Context, name string) error {
	cmd := exec.CommandContext(ctx, "demo/install-packages.sh", name)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}
