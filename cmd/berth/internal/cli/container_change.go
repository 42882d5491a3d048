package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/create"
	"github.com/berth-containers/berth/cmd/berth/internal/imageref"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

func newUpdate(a *app) *cobra.Command {
	var limits *create.Limits
	cmd := verb("update [OPTIONS] CONTAINER [CONTAINER...]", "Update configuration of one or more containers", 1, -1,
		func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 {
				return &usageError{message: "you must provide one or more flags when using this command", command: cmd.CommandPath()}
			}
			upd, err := limits.Update()
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string) error {
				done, err := c.ContainerUpdate(ctx, ref, upd)
				for _, w := range done.Warnings {
					fmt.Fprintf(a.err, "WARNING: %s\n", w)
				}
				return err
			})
		})
	limits = create.AddLimitFlags(cmd.Flags())
	completeFlag(cmd, "restart", fixed("no", "always", "unless-stopped", "on-failure"))
	cmd.ValidArgsFunction = a.completeContainers(anyState)
	return cmd
}

func newCommit(a *app) *cobra.Command {
	var opt client.CommitOptions
	var changes listFlag
	var pause bool
	cmd := verb("commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes", 1, 2,
		func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				ref := withLatest(imageref.Parse(args[1]))
				if ref.Digest != "" {
					return errors.New("refusing to create a tag with a digest reference")
				}
				opt.Repo, opt.Tag = ref.Repo, ref.Tag
			}
			opt.Changes, opt.NoPause = changes, !pause
			c, err := a.client()
			if err != nil {
				return err
			}
			id, err := c.ContainerCommit(cmd.Context(), args[0], opt)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, id)
			return err
		})
	fs := cmd.Flags()
	fs.StringVarP(&opt.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	fs.StringVarP(&opt.Comment, "message", "m", "", "Commit message")
	fs.VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	fs.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	cmd.ValidArgsFunction = a.completeContainer(anyState)
	return cmd
}

func newExport(a *app) *cobra.Command {
	var output string
	cmd := verb("export [OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive", 1, 1,
		func(cmd *cobra.Command, args []string) error {
			return a.writeArchive(output, func(c *client.Client) (io.ReadCloser, error) {
				return c.ContainerExport(cmd.Context(), args[0])
			})
		})
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.ValidArgsFunction = a.completeContainer(anyState)
	return cmd
}

// writeArchive writes what an engine answers with to a file, or to standard
// output when that is no terminal. The file takes its name when it is whole;
// until then whatever had that name stays.
func (a *app) writeArchive(output string, get func(*client.Client) (io.ReadCloser, error)) error {
	if output == "" && terminal.Is(a.out) {
		return &hinted{error: errors.New("cowardly refusing to save to a terminal"), hint: "use the -o flag or redirect"}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	body, err := get(c)
	if err != nil {
		return err
	}
	defer body.Close()
	if output == "" {
		_, err := io.Copy(struct{ io.Writer }{a.out}, body)
		return err
	}
	return writeWhole(output, body)
}

func writeWhole(path string, r io.Reader) (err error) {
	if info, statErr := os.Stat(path); statErr == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return fmt.Errorf("write %s: it is a directory", path)
		}
		return writeInto(path, r) // a device or a pipe
	}
	tmp, err := os.CreateTemp(dirOf(path), ".berth-*")
	if err != nil {
		var cause *os.PathError
		if errors.As(err, &cause) {
			err = cause.Err // the temporary name is nobody's concern
		}
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = io.Copy(tmp, r)
	if err = errors.Join(err, tmp.Chmod(0o600), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func dirOf(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[:i+1]
		}
	}
	return "."
}

func writeInto(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

func newContainerPrune(a *app) *cobra.Command {
	var p pruning
	cmd := verb("prune [OPTIONS]", "Remove all stopped containers", 0, 0, func(cmd *cobra.Command, _ []string) error {
		if ok, err := a.confirm(p.force, "This will remove all stopped containers."); !ok {
			return err
		}
		reclaimed, err := a.pruneContainers(cmd.Context(), p.filter.Filters)
		if err != nil {
			return err
		}
		return a.reclaimed(reclaimed)
	})
	p.addFlags(cmd)
	return cmd
}

// pruning are the flags of the prune commands.
type pruning struct {
	force  bool
	filter filterFlag
}

func (p *pruning) addFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&p.force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().Var(&p.filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	cmd.ValidArgsFunction = noCompletion
}

// confirm asks before something is removed.
func (a *app) confirm(force bool, warning string) (bool, error) {
	if force {
		return true, nil
	}
	fmt.Fprintf(a.out, "WARNING! %s\nAre you sure you want to continue? [y/N] ", warning)
	var answer string
	_, _ = fmt.Fscanln(a.in, &answer) // no answer is no
	if answer != "y" && answer != "Y" && answer != "yes" {
		return false, &statusError{code: 1, err: errors.New("nothing was removed: the prompt was not answered with y")}
	}
	return true, nil
}

func (a *app) pruneContainers(ctx context.Context, f client.Filters) (uint64, error) {
	c, err := a.client()
	if err != nil {
		return 0, err
	}
	report, err := c.ContainerPrune(ctx, f)
	if err != nil {
		return 0, err
	}
	if len(report.ContainersDeleted) > 0 {
		fmt.Fprintln(a.out, "Deleted Containers:")
		for _, id := range report.ContainersDeleted {
			fmt.Fprintln(a.out, id)
		}
		fmt.Fprintln(a.out)
	}
	return report.SpaceReclaimed, nil
}

func (a *app) reclaimed(n uint64) error {
	_, err := fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(n)))
	return err
}

func newContainerGroup(a *app) *cobra.Command {
	return group("container", "Manage containers",
		newAttach(a), newCommit(a), newCp(a), newCreate(a), newDiff(a), newExec(a), newExport(a),
		renamed(newInspectOf(a, "container"), "inspect"), newKill(a), newLogs(a),
		renamed(newPs(a), "ls", "list", "ps"), newPause(a), newPort(a), newContainerPrune(a), newRename(a),
		newRestart(a), renamed(newRm(a), "rm", "remove"), newRun(a), newStart(a), newStats(a), newStop(a),
		newTop(a), newUnpause(a), newUpdate(a), newWait(a))
}
