package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/create"
	"github.com/berth-containers/berth/cmd/berth/internal/imageref"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// creation are the flags of create, and of run beside its own.
type creation struct {
	opts     *create.Options
	name     string
	platform string
	pull     string
	quiet    bool
}

func (c *creation) addFlags(cmd *cobra.Command, a *app) {
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.Bool("help", false, "Print usage") // without -h, which is --hostname
	fs.StringVar(&c.name, "name", "", "Assign a name to the container")
	fs.StringVar(&c.platform, "platform", "", "Set platform if server is multi-platform capable")
	fs.StringVar(&c.pull, "pull", "missing", `Pull image before creating ("always", "missing", "never")`)
	fs.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress the pull output")
	c.opts = create.AddFlags(fs)
	completeFlag(cmd, "network", a.completeNetworks)
	completeFlag(cmd, "pull", fixed("always", "missing", "never"))
	completeFlag(cmd, "restart", fixed("no", "always", "unless-stopped", "on-failure"))
	completeFlag(cmd, "volumes-from", a.completeContainers(anyState))
}

func newCreate(a *app) *cobra.Command {
	var c creation
	cmd := verb("create [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", 1, -1,
		func(cmd *cobra.Command, args []string) error {
			req, err := c.request(args)
			if err != nil {
				return withStatus(125, err)
			}
			id, err := a.create(cmd.Context(), &c, req)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, id)
			return err
		})
	c.addFlags(cmd, a)
	cmd.ValidArgsFunction = a.completeImage
	return cmd
}

func (c *creation) request(args []string) (*container.CreateRequest, error) {
	switch c.pull {
	case "always", "missing", "never":
	default:
		return nil, fmt.Errorf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", c.pull)
	}
	return c.opts.Request(args[0], args[1:])
}

// create makes the container, pulling its image as --pull says, and returns its id.
func (a *app) create(ctx context.Context, c *creation, req *container.CreateRequest) (string, error) {
	cl, err := a.client()
	if err != nil {
		return "", err
	}
	cid, err := openCIDFile(c.opts.CIDFile)
	if err != nil {
		return "", err
	}
	defer cid.close()
	if c.pull == "always" {
		if err := a.pullFor(ctx, cl, c, req.Image); err != nil {
			return "", err
		}
	}
	made, err := cl.ContainerCreate(ctx, c.name, c.platform, req)
	if c.pull == "missing" && noSuchImage(err) {
		if !c.quiet {
			ref := imageref.Parse(req.Image)
			fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", withLatest(ref))
		}
		if err := a.pullFor(ctx, cl, c, req.Image); err != nil {
			return "", err
		}
		made, err = cl.ContainerCreate(ctx, c.name, c.platform, req)
	}
	if err != nil {
		return "", err
	}
	for _, w := range append(c.opts.Warnings(), made.Warnings...) {
		fmt.Fprintf(a.err, "WARNING: %s\n", w)
	}
	return made.ID, cid.write(made.ID)
}

// noSuchImage tells a missing image from whatever else a create may not find.
func noSuchImage(err error) bool {
	return client.NotFound(err) && strings.Contains(strings.ToLower(err.Error()), "image")
}

func withLatest(ref imageref.Ref) imageref.Ref {
	if ref.Tag == "" && ref.Digest == "" {
		ref.Tag = "latest"
	}
	return ref
}

// pullFor pulls an image on the way to something else: the progress is no
// output of the command.
func (a *app) pullFor(ctx context.Context, cl *client.Client, c *creation, name string) error {
	ref := withLatest(imageref.Parse(name))
	body, err := cl.ImagePull(ctx, client.PullOptions{Repo: ref.Repo, Tag: ref.Version(), Platform: c.platform, Auth: a.authFor(ref.Repo)})
	if err != nil {
		return err
	}
	defer body.Close()
	d := a.display(a.err)
	if c.quiet {
		d.Out, d.Size = discard{}, nil
	}
	_, err = d.Show(body)
	return err
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// cidFile is the file a container's id goes to. It is made before the
// container, so that a path that cannot be written costs nothing.
type cidFile struct {
	f       *os.File
	written bool
}

func openCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("create the container ID file: %w", err)
	}
	return &cidFile{f: f}, nil
}

func (c *cidFile) write(id string) error {
	if c.f == nil {
		return nil
	}
	if _, err := c.f.WriteString(id); err != nil {
		return fmt.Errorf("write the container ID file: %w", err)
	}
	c.written = true
	return nil
}

// close removes the file again when there was no id to write.
func (c *cidFile) close() {
	if c.f == nil {
		return
	}
	c.f.Close()
	if !c.written {
		os.Remove(c.f.Name())
	}
}

// running are the flags of run beside those of create.
type running struct {
	creation
	detach   bool
	sigProxy bool
	keys     string
}

func newRun(a *app) *cobra.Command {
	var r running
	cmd := verb("run [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image", 1, -1,
		func(cmd *cobra.Command, args []string) error { return a.run(cmd.Context(), &r, cmd.Flags(), args) })
	r.addFlags(cmd, a)
	fs := cmd.Flags()
	fs.BoolVarP(&r.detach, "detach", "d", false, "Run container in background and print container ID")
	fs.BoolVar(&r.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	detachFlag(fs, &r.keys)
	cmd.ValidArgsFunction = a.completeImage
	return cmd
}

// run creates a container, attaches to it, starts it and passes on its exit
// code. Attaching and waiting come before the start, so that not a byte and no
// exit is missed; both are asked for in one go.
func (a *app) run(ctx context.Context, r *running, fs *pflag.FlagSet, args []string) error {
	req, err := r.request(args)
	if err != nil {
		return withStatus(125, err)
	}
	keys, err := detachKeys(&r.keys)
	if err != nil {
		return withStatus(125, err)
	}
	if r.detach {
		if fs.Changed("attach") {
			return withStatus(125, errors.New("conflicting options: cannot specify both --attach and --detach"))
		}
		req.AttachStdin, req.AttachStdout, req.AttachStderr, req.StdinOnce = false, false, false, false
	} else if err := a.checkTTY(req.AttachStdin, req.Tty); err != nil {
		return err
	}
	if req.Tty {
		req.HostConfig.ConsoleSize[0], req.HostConfig.ConsoleSize[1] = terminal.Size(a.out)
	}
	id, err := a.create(ctx, &r.creation, req)
	if err != nil {
		return withStatus(125, err)
	}
	if !req.AttachStdin && !req.AttachStdout && !req.AttachStderr {
		if err := a.startOrRemove(ctx, id, r.opts.Remove); err != nil {
			return err
		}
		_, err := fmt.Fprintln(a.out, id)
		return err
	}
	f := &foreground{
		session: session{
			app: a, stdin: req.AttachStdin, stdout: req.AttachStdout, stderr: req.AttachStderr,
			tty: req.Tty, keys: keys,
		},
		id: id, name: r.name, remove: r.opts.Remove, sigProxy: r.sigProxy,
		attach: client.AttachOptions{
			Stdin: req.AttachStdin, Stdout: req.AttachStdout, Stderr: req.AttachStderr, DetachKeys: r.keys,
		},
	}
	return f.run(ctx)
}

// startOrRemove starts a container; when that fails one that was to be removed
// at its end goes at once.
func (a *app) startOrRemove(ctx context.Context, id string, remove bool) error {
	err := a.engine.ContainerStart(ctx, id)
	if err != nil && remove {
		// The engine may have done so itself; and the start's error is the one
		// that matters.
		_ = a.engine.ContainerRemove(ctx, id, true, true, false)
	}
	return startError(err)
}

// startError gives a failed start the exit code of the shell: 127 when the
// command is not there, 126 when it cannot be executed, 125 otherwise.
func startError(err error) error {
	if err == nil {
		return nil
	}
	code := 125
	text := err.Error()
	switch {
	case containsAny(text, "executable file not found", "no such file or directory", "command not found"):
		code = 127
	case containsAny(text, "permission denied", "is a directory", "exec format error", "not executable"):
		code = 126
	}
	return withStatus(code, err)
}

func containsAny(s string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

// foreground is a container that is started with the user attached.
type foreground struct {
	session
	id, name string
	// remove tells that the engine removes the container at its end.
	remove   bool
	sigProxy bool
	attach   client.AttachOptions
}

func (f *foreground) run(ctx context.Context) error {
	c := f.app.engine
	var signals <-chan chan os.Signal
	if f.sigProxy {
		signals = catchSignals()
	}
	stream, waiting, err := f.connect(ctx)
	if err != nil {
		return withStatus(125, err)
	}
	defer stream.Close()
	defer f.handleSignals(ctx, signals)()
	if err := f.begin(stream); err != nil {
		return withStatus(125, err)
	}
	if err := f.app.startOrRemove(ctx, f.id, f.remove); err != nil {
		stream.Close()
		f.end()
		return err
	}
	if f.tty {
		stop := f.app.followSize(ctx, func(ctx context.Context, h, w uint) error { return c.ContainerResize(ctx, f.id, h, w) })
		defer stop()
	}
	if err := f.end(); errors.Is(err, terminal.ErrDetached) {
		return f.app.detached()
	} else if err != nil {
		return withStatus(125, err)
	}
	return f.exitCode(waiting)
}

// handleSignals forwards the signals that are caught, or, when none are, sees
// to it that the terminal is put back.
func (f *foreground) handleSignals(ctx context.Context, caught <-chan chan os.Signal) (stop func()) {
	if caught == nil {
		return f.app.restoreOnSignal()
	}
	return f.app.forwardSignals(ctx, f.app.engine, f.id, <-caught)
}

// connect attaches and asks for the exit code, and returns when the engine has
// agreed to both.
func (f *foreground) connect(ctx context.Context) (*client.Stream, *client.Response, error) {
	c := f.app.engine
	attach, err := c.Send(ctx, client.AttachRequest(f.id, f.attach))
	if err != nil {
		return nil, nil, err
	}
	until := container.WaitConditionNextExit
	if f.remove {
		until = container.WaitConditionRemoved
	}
	wait, err := c.Send(ctx, client.WaitRequest(f.id, until))
	if err != nil {
		attach.Cancel()
		return nil, nil, err
	}
	attached, err := attach.Answer()
	if err != nil {
		wait.Cancel()
		return nil, nil, err
	}
	waiting, err := wait.Answer()
	if err != nil {
		attached.Stream().Close()
		return nil, nil, err
	}
	return attached.Stream(), waiting, nil
}

func (f *foreground) exitCode(waiting *client.Response) error {
	result, err := client.WaitResult(waiting)
	var lost *client.LostError
	if errors.As(err, &lost) {
		name := f.name
		if name == "" {
			name = f.id[:min(12, len(f.id))]
		}
		err = &hinted{error: err, hint: "the container goes on without it; attach again with: berth attach " + name}
	}
	if err != nil {
		return withStatus(125, err)
	}
	if result.Error != nil && result.Error.Message != "" {
		return withStatus(125, errors.New(result.Error.Message))
	}
	return exitStatus(int(result.StatusCode))
}
