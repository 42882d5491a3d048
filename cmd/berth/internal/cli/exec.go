package cli

import (
	"context"
	"errors"
	"os"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/create"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// execution are the flags of exec.
type execution struct {
	detach, stdin, tty, privileged bool
	user, workdir, keys            string
	env, envFile                   listFlag
}

func newExec(a *app) *cobra.Command {
	var e execution
	cmd := verb("exec [OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container", 2, -1,
		func(cmd *cobra.Command, args []string) error { return a.exec(cmd.Context(), &e, args[0], args[1:]) })
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.BoolVarP(&e.detach, "detach", "d", false, "Detached mode: run command in the background")
	fs.BoolVarP(&e.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&e.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.BoolVar(&e.privileged, "privileged", false, "Give extended privileges to the command")
	fs.StringVarP(&e.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	fs.StringVarP(&e.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.VarP(&e.env, "env", "e", "Set environment variables")
	fs.Var(&e.envFile, "env-file", "Read in a file of environment variables")
	detachFlag(fs, &e.keys)
	cmd.ValidArgsFunction = firstOnly(a.completeContainers(isRunning), cobra.ShellCompDirectiveDefault)
	return cmd
}

func (e *execution) request(a *app, command []string) (*container.ExecCreateRequest, error) {
	env, err := create.Environment(e.envFile, e.env, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	req := &container.ExecCreateRequest{
		User: e.user, Privileged: e.privileged, Tty: e.tty, DetachKeys: e.keys, Env: env,
		WorkingDir: e.workdir, Cmd: command,
		AttachStdin: e.stdin && !e.detach, AttachStdout: !e.detach, AttachStderr: !e.detach,
	}
	if h, w := terminal.Size(a.out); e.tty && h > 0 {
		req.ConsoleSize = &[2]uint{h, w}
	}
	return req, nil
}

func (a *app) exec(ctx context.Context, e *execution, ref string, command []string) error {
	keys, err := detachKeys(&e.keys)
	if err != nil {
		return err
	}
	req, err := e.request(a, command)
	if err != nil {
		return err
	}
	if err := a.checkTTY(req.AttachStdin, e.tty); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	id, err := c.ExecCreate(ctx, ref, req)
	if err != nil {
		return err
	}
	start := &container.ExecStartRequest{Detach: e.detach, Tty: e.tty, ConsoleSize: req.ConsoleSize}
	if e.detach {
		return execError(c.ExecStartDetached(ctx, id, start))
	}
	stream, err := c.ExecStart(ctx, id, start)
	if err != nil {
		return execError(err)
	}
	defer stream.Close()
	defer a.restoreOnSignal()()
	s := session{app: a, stdin: e.stdin, stdout: true, stderr: true, tty: e.tty, keys: keys}
	if err := s.begin(stream); err != nil {
		return err
	}
	if e.tty {
		defer a.followSize(ctx, func(ctx context.Context, h, w uint) error { return c.ExecResize(ctx, id, h, w) })()
	}
	if err := s.end(); errors.Is(err, terminal.ErrDetached) {
		return a.detached()
	} else if err != nil {
		return err
	}
	result, err := c.ExecInspect(ctx, id)
	if err != nil {
		return err
	}
	if result.ExitCode == nil {
		return errors.New("the engine does not know the command's exit code")
	}
	return exitStatus(*result.ExitCode)
}

// execError gives a failed exec the shell's exit code where it has one.
func execError(err error) error {
	var status *statusError
	if errors.As(startError(err), &status) && status.code == 125 {
		return err
	}
	return startError(err)
}
