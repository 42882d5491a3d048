// Command bench compares Berth with its peers in one run: berth-oci with runc
// and crun, berth with podman and docker. "make bench" runs it.
//
// It prints tables and, in a full run, writes them, a plot and all figures to
// docs/benchmarks. It needs root and the programs that "make build" makes, and
// installs the Debian packages of missing peers. See report/method.go for how it measures
// and package stage for why nothing is left behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/bench/stage"
)

// options are the command line's.
type options struct {
	quick   bool
	rounds  int
	only    string
	out     string
	bin     string
	work    string
	install bool
	peers   []peer
}

// peer is a further OCI runtime to compare.
type peer struct{ name, path string }

// sections are what -only takes, in the order they are run.
const (
	sectionOCI        = "oci"
	sectionThroughput = "throughput"
	sectionEngine     = "engine"
	sectionUpgrade    = "upgrade"
	sectionMemory     = "memory"
	sectionScale      = "scale"
	sectionPull       = "pull"
	sectionSnapshots  = "snapshotter"
)

// resultsDir is where the process inside leaves the results, below the working directory.
const resultsDir = "results"

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(code)
}

func run() (int, error) {
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return 2, err
	}
	switch stage.CurrentRole() {
	case stage.Init:
		return stage.RunInit()
	case stage.Inside:
		err = inside(o)
	default:
		err = outside(o)
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

func parseOptions(args []string) (*options, error) {
	o := new(options)
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.BoolVar(&o.quick, "quick", false, "few rounds, for a first look: at most 90 seconds instead of 10 minutes")
	fs.IntVar(&o.rounds, "rounds", 0, "rounds of each runtime's loop `N`; engines' loops have a quarter (default 100, quick 10)")
	fs.StringVar(&o.only, "only", "", "run one `section` only: oci, throughput, engine, upgrade, memory, scale, pull or snapshotter")
	fs.StringVar(&o.out, "out", "", "`directory` for results.md, results.json and start.svg (default docs/benchmarks for a full run, else none)")
	fs.StringVar(&o.bin, "bin", "bin", "`directory` with Berth's programs")
	fs.StringVar(&o.work, "work", "/var/tmp", "`directory` for images and containers, on the file system to measure on; no overlay")
	fs.BoolVar(&o.install, "install", true, "install missing peers' Debian packages")
	fs.Func("peer", "another OCI runtime to compare, `NAME=PATH`; repeatable. Also by the environment variable BENCH_PEERS, separated by spaces", o.addPeer)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	for _, p := range strings.Fields(os.Getenv("BENCH_PEERS")) {
		if err := o.addPeer(p); err != nil {
			return nil, fmt.Errorf("BENCH_PEERS: %w", err)
		}
	}
	switch o.only {
	case "", sectionOCI, sectionThroughput, sectionEngine, sectionUpgrade, sectionMemory, sectionScale, sectionPull, sectionSnapshots:
	default:
		return nil, fmt.Errorf("-only %s: oci, throughput, engine, upgrade, memory, scale, pull or snapshotter", o.only)
	}
	if o.out == "" && !o.quick && o.only == "" {
		o.out = "docs/benchmarks"
	}
	return o, nil
}

func (o *options) addPeer(text string) error {
	name, path, ok := strings.Cut(text, "=")
	if !ok || name == "" || !filepath.IsAbs(path) {
		return fmt.Errorf("%q: give a name, = and an absolute path", text)
	}
	o.peers = append(o.peers, peer{name, path})
	return nil
}

// does says whether a section is asked for.
func (o *options) does(section string) bool { return o.only == "" || o.only == section }

// outside prepares the host, runs the benchmark in its place and takes the
// place away.
func outside(o *options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("the runtimes and engines need root")
	}
	if _, err := os.Stat(filepath.Join(o.bin, "berth-oci")); err != nil {
		return fmt.Errorf("%w (make build makes Berth's programs)", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if o.install {
		installPeers(ctx)
	}
	st, err := stage.New(o.work)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Remove()) }()
	if err := prepareWork(ctx, st); err != nil {
		return err
	}
	if o.install && (o.does(sectionOCI) || o.does(sectionThroughput)) {
		buildNewest(ctx, st.Work)
	}
	if o.does(sectionPull) || o.does(sectionSnapshots) {
		if err := makePulled(ctx, filepath.Join(st.Work, "python")); err != nil {
			return err
		}
		if o.install && o.does(sectionPull) {
			buildNewestContainerd(ctx, st.Work)
		}
	}
	if err := st.Run(ctx, os.Args[1:]); err != nil {
		return err
	}
	return copyResults(filepath.Join(st.Work, resultsDir), o.out)
}

// prepareWork makes what needs the host's own surroundings.
func prepareWork(ctx context.Context, st stage.Stage) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(st.Work, "spawner"), "./bench/spawner")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build spawner: %w: %s", err, out)
	}
	image, err := os.Create(filepath.Join(st.Work, "busybox.tar"))
	if err != nil {
		return err
	}
	defer image.Close()
	pack := exec.CommandContext(ctx, "demo/make-busybox.sh")
	pack.Stdout, pack.Stderr = image, os.Stderr
	if err := pack.Run(); err != nil {
		return fmt.Errorf("make busybox image: %w", err)
	}
	rootfs := filepath.Join(st.Work, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "tar", "-xf", image.Name(), "-C", rootfs).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack busybox image: %w: %s", err, out)
	}
	// What was built and unpacked is not to be written back while something is
	// measured.
	unix.Sync()
	return os.Chmod(st.Work, 0o755)
}

// copyResults copies the files of one directory into another.
func copyResults(from, to string) error {
	if to == "" {
		return nil
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), text, 0o644); err != nil {
			return err
		}
		fmt.Println("wrote", filepath.Join(to, e.Name()))
	}
	return nil
}

// inside runs the benchmark and writes its results into the stage's directory.
func inside(o *options) error {
	limit := 15 * time.Minute // far above what the loops' own limits add up to
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("the benchmark has not ended after %v", limit))
	defer cancel()
	b, err := newBench(o, stage.Current())
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := b.run(ctx); err != nil {
		return err
	}
	b.results.Machine.Begin, b.results.Machine.End = begin, time.Now()
	b.results.Machine.LoadAtEnd = loadAverage()
	fmt.Println()
	if err := b.results.WriteMarkdown(os.Stdout, false); err != nil {
		return err
	}
	return b.results.WriteFiles(filepath.Join(b.stage.Work, resultsDir))
}

// progress says on standard error what is being measured.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
