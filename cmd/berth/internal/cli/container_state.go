package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// atOnce bounds how many containers are acted on at the same time.
const atOnce = 32

// each acts on several containers at the same time and prints, in the order
// given, the name of each that worked. The errors of the others are joined.
func (a *app) each(ctx context.Context, refs []string, act func(ctx context.Context, c *client.Client, ref string) error) error {
	return a.eachTelling(ctx, refs, func(ctx context.Context, c *client.Client, ref string) (string, error) {
		return ref, act(ctx, c, ref)
	})
}

// eachTelling is each with a line of act's own.
func (a *app) eachTelling(ctx context.Context, refs []string, act func(ctx context.Context, c *client.Client, ref string) (string, error)) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	type outcome struct {
		line string
		err  error
	}
	outcomes := make([]chan outcome, len(refs))
	slots := make(chan struct{}, atOnce)
	for i, ref := range refs {
		outcomes[i] = make(chan outcome, 1)
		go func() {
			slots <- struct{}{}
			line, err := act(ctx, c, ref)
			<-slots
			outcomes[i] <- outcome{line, err}
		}()
	}
	var errs []error
	for i := range refs {
		o := <-outcomes[i]
		if o.err == nil {
			_, o.err = fmt.Fprintln(a.out, o.line)
		}
		if o.err != nil && !repeated(errs, o.err) {
			errs = append(errs, o.err)
		}
	}
	return errors.Join(errs...)
}

// repeated tells that an unreachable engine has been complained about already.
func repeated(errs []error, err error) bool {
	var gone *client.UnreachableError
	if !errors.As(err, &gone) {
		return false
	}
	for _, e := range errs {
		if e.Error() == err.Error() {
			return true
		}
	}
	return false
}

func newStart(a *app) *cobra.Command {
	var attach, stdin bool
	var keys string
	cmd := verb("start [OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", 1, -1,
		func(cmd *cobra.Command, args []string) error {
			if !attach && !stdin {
				return a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string) error {
					return c.ContainerStart(ctx, ref)
				})
			}
			if len(args) > 1 {
				return errors.New("cannot start and attach multiple containers at once")
			}
			return a.startAttached(cmd.Context(), args[0], stdin, keys)
		})
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	cmd.Flags().BoolVarP(&stdin, "interactive", "i", false, "Attach container's STDIN")
	detachFlag(cmd.Flags(), &keys)
	cmd.ValidArgsFunction = a.completeContainers(isStopped)
	return cmd
}

func (a *app) startAttached(ctx context.Context, ref string, stdin bool, keyFlag string) error {
	keys, err := detachKeys(&keyFlag)
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	found, err := c.ContainerDescribe(ctx, ref)
	if err != nil {
		return err
	}
	stdin = stdin && found.Config.OpenStdin
	f := &foreground{
		session: session{app: a, stdin: stdin, stdout: true, stderr: true, tty: found.Config.Tty, keys: keys},
		id:      found.ID, name: ref, remove: false, sigProxy: !found.Config.Tty,
		attach: client.AttachOptions{Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: keyFlag},
	}
	return f.run(ctx)
}

func newStop(a *app) *cobra.Command {
	return a.stopLike("stop", "Stop one or more running containers", isRunning, (*client.Client).ContainerStop)
}

func newRestart(a *app) *cobra.Command {
	return a.stopLike("restart", "Restart one or more containers", anyState, (*client.Client).ContainerRestart)
}

func (a *app) stopLike(name, short string, state func(container.ContainerState) bool,
	act func(c *client.Client, ctx context.Context, ref, signal string, timeout *int) error) *cobra.Command {
	var signal string
	var timeout int
	cmd := verb(name+" [OPTIONS] CONTAINER [CONTAINER...]", short, 1, -1, func(cmd *cobra.Command, args []string) error {
		wait := optionalInt(cmd.Flags(), "timeout", timeout)
		if wait == nil {
			wait = optionalInt(cmd.Flags(), "time", timeout)
		}
		return a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string) error {
			return act(c, ctx, ref, signal, wait)
		})
	})
	fs := cmd.Flags()
	fs.StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	fs.IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	fs.IntVar(&timeout, "time", 0, "Seconds to wait before killing the container")
	fs.Lookup("time").Hidden = true // its name before Docker 28
	fs.Lookup("timeout").DefValue, fs.Lookup("time").DefValue = "", ""
	cmd.ValidArgsFunction = a.completeContainers(state)
	return cmd
}

func newKill(a *app) *cobra.Command {
	var signal string
	cmd := verb("kill [OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers", 1, -1,
		func(cmd *cobra.Command, args []string) error {
			return a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string) error {
				return c.ContainerKill(ctx, ref, signal)
			})
		})
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	cmd.ValidArgsFunction = a.completeContainers(isRunning)
	return cmd
}

func newPause(a *app) *cobra.Command {
	cmd := verb("pause CONTAINER [CONTAINER...]", "Pause all processes within one or more containers", 1, -1,
		func(cmd *cobra.Command, args []string) error {
			return a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string) error {
				return c.ContainerPause(ctx, ref)
			})
		})
	cmd.ValidArgsFunction = a.completeContainers(isRunning)
	return cmd
}

func newUnpause(a *app) *cobra.Command {
	cmd := verb("unpause CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers", 1, -1,
		func(cmd *cobra.Command, args []string) error {
			return a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string) error {
				return c.ContainerUnpause(ctx, ref)
			})
		})
	cmd.ValidArgsFunction = a.completeContainers(isPaused)
	return cmd
}

func newRm(a *app) *cobra.Command {
	var force, volumes, link bool
	cmd := verb("rm [OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers", 1, -1,
		func(cmd *cobra.Command, args []string) error {
			return a.eachPrinting(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string) (bool, error) {
				err := c.ContainerRemove(ctx, ref, force, volumes, link)
				if force && client.NotFound(err) {
					return false, a.warn(err)
				}
				return err == nil, err
			})
		})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	cmd.Flags().BoolVarP(&link, "link", "l", false, "Remove the specified link")
	cmd.ValidArgsFunction = a.completeContainers(anyState)
	return cmd
}

// warn prints an error that does not end the command.
func (a *app) warn(err error) error {
	_, failed := fmt.Fprintf(a.err, "berth: %v\n", err)
	return failed
}

// eachPrinting is each for acts that may have nothing to print.
func (a *app) eachPrinting(ctx context.Context, refs []string, act func(ctx context.Context, c *client.Client, ref string) (bool, error)) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var errs []error
	for _, ref := range refs {
		done, err := act(ctx, c, ref)
		if done {
			_, err = fmt.Fprintln(a.out, ref)
		}
		if err != nil && !repeated(errs, err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func newWait(a *app) *cobra.Command {
	cmd := verb("wait CONTAINER [CONTAINER...]", "Block until one or more containers stop, then print their exit codes", 1, -1,
		func(cmd *cobra.Command, args []string) error {
			return a.eachTelling(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string) (string, error) {
				result, err := c.ContainerWait(ctx, ref, "")
				if err == nil && result.Error != nil && result.Error.Message != "" {
					err = errors.New(result.Error.Message)
				}
				return fmt.Sprint(result.StatusCode), err
			})
		})
	cmd.ValidArgsFunction = a.completeContainers(isRunning)
	return cmd
}

func newRename(a *app) *cobra.Command {
	cmd := verb("rename CONTAINER NEW_NAME", "Rename a container", 2, 2, func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return c.ContainerRename(cmd.Context(), args[0], args[1])
	})
	cmd.ValidArgsFunction = a.completeContainer(anyState)
	return cmd
}

func newAttach(a *app) *cobra.Command {
	var noStdin, sigProxy bool
	var keys string
	cmd := verb("attach [OPTIONS] CONTAINER", "Attach local standard input, output, and error streams to a running container", 1, 1,
		func(cmd *cobra.Command, args []string) error {
			return a.attach(cmd.Context(), args[0], noStdin, sigProxy, keys)
		})
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	detachFlag(cmd.Flags(), &keys)
	cmd.ValidArgsFunction = a.completeContainer(isRunning)
	return cmd
}

func (a *app) attach(ctx context.Context, ref string, noStdin, sigProxy bool, keyFlag string) error {
	keys, err := detachKeys(&keyFlag)
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	found, err := c.ContainerDescribe(ctx, ref)
	if err != nil {
		return err
	}
	if err := attachable(ref, found.State); err != nil {
		return err
	}
	stdin := !noStdin && found.Config.OpenStdin
	if err := a.checkTTY(stdin, found.Config.Tty); err != nil {
		return err
	}
	f := &foreground{
		session: session{app: a, stdin: stdin, stdout: true, stderr: true, tty: found.Config.Tty, keys: keys},
		id:      found.ID, name: ref, sigProxy: sigProxy && !found.Config.Tty,
		attach: client.AttachOptions{Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: keyFlag},
	}
	return f.join(ctx)
}

func attachable(ref string, s *container.State) error {
	switch {
	case s == nil || s.Restarting:
		return fmt.Errorf("cannot attach to container %s: it is restarting", ref)
	case s.Paused:
		return &hinted{error: fmt.Errorf("cannot attach to container %s: it is paused", ref), hint: "unpause it first: berth unpause " + ref}
	case !s.Running:
		return &hinted{error: fmt.Errorf("cannot attach to container %s: it is not running", ref), hint: "start it first: berth start -a " + ref}
	}
	return nil
}

// join attaches to a container that runs.
func (f *foreground) join(ctx context.Context) error {
	var signals <-chan chan os.Signal
	if f.sigProxy {
		signals = catchSignals()
	}
	stream, waiting, err := f.connect(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	defer f.handleSignals(ctx, signals)()
	if err := f.begin(stream); err != nil {
		return err
	}
	if f.tty {
		defer f.app.followSize(ctx, f.resize)()
	}
	if err := f.end(); errors.Is(err, terminal.ErrDetached) {
		return f.app.detached()
	} else if err != nil {
		return err
	}
	return f.exitCode(waiting)
}

func (f *foreground) resize(ctx context.Context, height, width uint) error {
	return f.app.engine.ContainerResize(ctx, f.id, height, width)
}
