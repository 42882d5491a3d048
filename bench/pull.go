package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/bench/report"
)

// The registry that is pulled from, in the stage's own network, and what is.
const (
	registryAddress = "127.0.0.1:5000"
	pulledImage     = registryAddress + "/python:" + pulledTag
	changedImage    = registryAddress + "/python:" + changedTag
)

// puller is an engine that images are brought into.
type puller struct {
	*engine
	pull func(image string) []string
	load func(archive string) []string
	// roots are the directories it keeps images in: arguments that are one of
	// them get another one, below stores, for each round.
	roots  []string
	stores string
}

// comparePulls measures bringing a real image in: from a registry, the same with
// another top layer, and from an archive, twice. Each round begins with an empty store
// on a new path.
func (b *bench) comparePulls(ctx context.Context) (err error) {
	stores, err := b.mountStores(ctx)
	if err != nil {
		return err
	}
	stop, err := b.serveRegistry(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	pullers, err := b.openPullers(ctx, stores)
	defer func() {
		for _, p := range pullers {
			err = errors.Join(err, p.stopServices(), p.close())
		}
	}()
	if err != nil {
		return err
	}
	var names []string
	for _, p := range pullers {
		names = append(names, p.name)
	}
	cases := []string{"pull, three layers", "pull, the top layer changed", "load", "load of what is there"}
	ts := map[string][]*report.Timing{}
	for _, name := range cases {
		ts[name] = timings(report.Pulls, name, report.Tight, names)
	}
	archive, err := b.pulledArchive(ctx)
	if err != nil {
		return err
	}
	for round := range b.plan.pullRounds {
		for _, i := range rand.Perm(len(pullers)) {
			p := pullers[i]
			progress("%s: pull and load, round %d", p.name, round+1)
			for j, argv := range [][]string{p.pull(pulledImage), p.pull(changedImage)} {
				if err := b.bring(ctx, p, fmt.Sprintf("pull-%d", round), j == 0, argv, ts[cases[j]][i]); err != nil {
					return err
				}
			}
			if err := p.stopServices(); err != nil {
				return err
			}
			for j, name := range cases[2:] {
				if err := b.bring(ctx, p, fmt.Sprintf("load-%d", round), j == 0, p.load(archive), ts[name][i]); err != nil {
					return err
				}
			}
			if err := p.stopServices(); err != nil {
				return err
			}
		}
	}
	for _, name := range cases {
		b.keep(ts[name])
	}
	return nil
}

// bring runs one command on the store of a round and records it.
func (b *bench) bring(ctx context.Context, p *puller, round string, start bool, argv []string, t *report.Timing) error {
	if start {
		if err := b.startServices(ctx, p.at(round)); err != nil {
			return err
		}
	}
	unix.Sync() // what others wrote is not to be written back now
	res, used, err := p.place.runCounted(ctx, p.renew(argv, round)...)
	if err != nil {
		return err
	}
	record(t, res)
	t.CPUMS = append(t.CPUMS, rounded(used))
	peak, err := p.place.peakSizes()
	if err != nil {
		return err
	}
	last := len(t.PeakKiB) - 1
	t.PeakKiB[last] = max(t.PeakKiB[last], float64(peak))
	return nil
}

// at is the engine with the roots of a round.
func (p *puller) at(round string) *engine {
	for i, argv := range p.services {
		p.services[i] = p.renew(argv, round)
	}
	return p.engine
}

// renew puts a round's directories in place of the roots, or of those of an
// earlier round.
func (p *puller) renew(argv []string, round string) []string {
	made := make([]string, len(argv))
	for i, arg := range argv {
		made[i] = arg
		for _, root := range p.roots {
			own := filepath.Join(p.stores, filepath.Base(root)) + "@"
			if arg == root || strings.HasPrefix(arg, own) {
				made[i] = own + round
			}
		}
	}
	return made
}

// peakSizes adds up the largest resident sets of a candidate's processes that
// run, in KiB.
func (p *place) peakSizes() (kib int64, err error) {
	pids, err := p.account.Processes()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if pid == p.spawner.Pid() {
			continue
		}
		text := field(filepath.Join("/proc", strconv.Itoa(pid), "status"), "VmHWM", ":")
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(text, "kB")), 10, 64)
		if err == nil { // it may have ended
			kib += n
		}
	}
	return kib, nil
}

// storesSize is how large the file system of the stores may grow, in bytes.
const storesSize = 64 << 30

// mountStores makes a file system for all stores, in a file, and mounts it where
// nobody else sees it: ext4 looks long for an inode where many were freed within
// the last minutes, and so whoever comes first after something was removed would
// pay for it. Where it cannot be mounted the stores are beside everything else.
func (b *bench) mountStores(ctx context.Context) (string, error) {
	stores := filepath.Join(b.stage.Work, "stores")
	if _, err := os.Stat(stores); err == nil {
		return stores, nil
	}
	file := stores + ".ext4"
	if err := errors.Join(os.Mkdir(stores, 0o755), os.WriteFile(file, nil, 0o600), os.Truncate(file, storesSize)); err != nil {
		return "", err
	}
	for _, argv := range [][]string{{"mkfs.ext4", "-q", "-F", file}, {"mount", "-o", "loop", file, stores}} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			b.note("The stores that images are pulled to have no file system of their own: %s: %v: %s.", argv[0], err, strings.TrimSpace(string(out)))
			break
		}
	}
	return stores, nil
}

// openPullers describes the engines that are there.
func (b *bench) openPullers(ctx context.Context, stores string) ([]*puller, error) {
	var list []*puller
	described := len(b.results.Programs)
	work := func(name string) string { return filepath.Join(b.stage.Work, name) }
	for _, open := range []struct {
		engine func(context.Context) (*engine, error)
		roots  []string
		pull   func(e *engine, image string) []string
		load   func(e *engine, archive string) []string
	}{
		{b.openBerth, []string{work("berth")}, plainPull, plainLoad},
		{b.openPodman, []string{work("podman")}, func(e *engine, image string) []string { return e.argv("pull", "--quiet", "--tls-verify=false", image) }, plainLoad},
		{b.openDocker, []string{work("docker"), work("containerd")}, plainPull, plainLoad},
		{b.openContainerd, []string{work("newest-containerd")}, func(e *engine, image string) []string {
			return e.argv("image", "pull", "--plain-http", image)
		}, func(e *engine, archive string) []string { return e.argv("image", "import", archive) }},
	} {
		e, err := open.engine(ctx)
		if err != nil {
			return list, err
		}
		if e != nil {
			list = append(list, &puller{
				engine: e, roots: open.roots, stores: stores,
				pull: func(image string) []string { return open.pull(e, image) }, load: func(archive string) []string { return open.load(e, archive) },
			})
		}
	}
	if b.only == "" { // the engines have been described before
		b.results.Programs = b.results.Programs[:described]
	}
	return list, nil
}

func plainPull(e *engine, image string) []string { return e.argv("pull", "--quiet", image) }
func plainLoad(e *engine, archive string) []string {
	return e.argv("load", "--quiet", "--input", archive)
}

// openContainerd is the newest containerd with its own client.
func (b *bench) openContainerd(ctx context.Context) (*engine, error) {
	daemon, client := filepath.Join(b.stage.Work, "containerd"+newestSuffix), filepath.Join(b.stage.Work, "ctr"+newestSuffix)
	if _, err := os.Stat(daemon); err != nil {
		return nil, nil
	}
	b.describe(ctx, peer{"containerd" + newestSuffix, daemon})
	place, err := b.newPlace("containerd"+newestSuffix, false)
	if err != nil {
		return nil, err
	}
	const socket = "/run/containerd-new/containerd.sock"
	return &engine{
		place: place, name: "containerd" + newestSuffix, client: []string{client, "--address", socket},
		services: [][]string{{
			daemon, "--config", "/dev/null", "--address", socket, "--state", "/run/containerd-new",
			"--root", filepath.Join(b.stage.Work, "newest-containerd"),
		}},
	}, nil
}

// serveRegistry starts a registry, without an account of its own, and puts the
// image into it; stop ends it.
func (b *bench) serveRegistry(ctx context.Context) (stop func() error, err error) {
	config := filepath.Join(b.stage.Work, "registry.yml")
	text := "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: " + filepath.Join(b.stage.Work, "registry") +
		"}}\nhttp: {addr: '" + registryAddress + "'}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("docker-registry", "serve", config)
	log, err := os.Create(filepath.Join(b.stage.Work, "registry.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start docker-registry: %w", err)
	}
	stop = func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // says "killed"
		return err
	}
	if err := b.fillRegistry(ctx); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

func (b *bench) fillRegistry(ctx context.Context) error {
	if err := awaitListener(ctx, registryAddress); err != nil {
		return err
	}
	if err := trustAll(); err != nil {
		return err
	}
	layout := filepath.Join(b.stage.Work, "python")
	for _, argv := range [][]string{
		{"--dest-tls-verify=false", "oci:" + layout + ":" + pulledTag, "docker://" + pulledImage},
		{"--dest-tls-verify=false", "oci:" + layout + ":" + changedTag, "docker://" + changedImage},
	} {
		if out, err := exec.CommandContext(ctx, "skopeo", append([]string{"copy", "-q"}, argv...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("skopeo copy: %w: %s", err, out)
		}
	}
	return nil
}

// pulledArchive is the image as a file.
func (b *bench) pulledArchive(ctx context.Context) (string, error) {
	archive := filepath.Join(b.stage.Work, "python.tar")
	if _, err := os.Stat(archive); err == nil {
		return archive, nil
	}
	if err := trustAll(); err != nil {
		return "", err
	}
	from, to := "oci:"+filepath.Join(b.stage.Work, "python")+":"+pulledTag, "docker-archive:"+archive+":"+pulledImage
	if out, err := exec.CommandContext(ctx, "skopeo", "copy", "-q", from, to).CombinedOutput(); err != nil {
		return "", fmt.Errorf("skopeo copy: %w: %s", err, out)
	}
	return archive, nil
}

// awaitListener returns when somebody accepts connections.
func awaitListener(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}
