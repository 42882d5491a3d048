package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/localcopy"
	"github.com/berth-containers/berth/cmd/berth/internal/render"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// copying are the arguments of cp.
type copying struct {
	container, inside, outside string
	followLink, archive, quiet bool
}

func newCp(a *app) *cobra.Command {
	var c copying
	cmd := verb("cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n  berth cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		"Copy files/folders between a container and the local filesystem", 2, 2,
		func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("quiet") {
				c.quiet = !terminal.Is(a.out)
			}
			return a.copy(cmd.Context(), &c, args[0], args[1])
		})
	cmd.Long = `Copy files/folders between a container and the local filesystem

Use '-' as the source to read a tar archive from stdin and extract it to a directory in a container.
Use '-' as the destination to stream a tar archive of a file or directory of a container to stdout.`
	fs := cmd.Flags()
	fs.BoolVarP(&c.followLink, "follow-link", "L", false, "Always follow symlinks in SRC_PATH")
	fs.BoolVarP(&c.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	fs.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress the summary, as without a terminal")
	cmd.ValidArgsFunction = a.completeCp
	return cmd
}

// completeCp completes containers with a colon, and files.
func (a *app) completeCp(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	names, _ := a.completeContainers(anyState)(cmd, nil, typed)
	for i := range names {
		names[i] += ":"
	}
	return names, cobra.ShellCompDirectiveNoSpace
}

func (a *app) copy(ctx context.Context, c *copying, source, destination string) error {
	if source == "" {
		return errors.New("source can not be empty")
	}
	if destination == "" {
		return errors.New("destination can not be empty")
	}
	from, fromPath := splitContainerPath(source)
	to, toPath := splitContainerPath(destination)
	switch {
	case from != "" && to != "":
		return &hinted{error: errors.New("copying between containers is not supported"), hint: "berth cp " + source + " - | berth cp - " + destination}
	case from != "":
		c.container, c.inside, c.outside = from, fromPath, toPath
		return a.copyOut(ctx, c)
	case to != "":
		c.container, c.inside, c.outside = to, toPath, fromPath
		return a.copyIn(ctx, c)
	}
	return &hinted{error: errors.New("must specify at least one container source"), hint: "write CONTAINER:PATH for what is in a container"}
}

// splitContainerPath takes CONTAINER:PATH apart; of a local path the container
// is "". One with a colon in it begins with / or a dot.
func splitContainerPath(arg string) (container, path string) {
	if filepath.IsAbs(arg) {
		return "", arg
	}
	name, path, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(name, ".") {
		return "", arg
	}
	return name, path
}

// copyOut copies from a container.
func (a *app) copyOut(ctx context.Context, c *copying) error {
	engine, err := a.client()
	if err != nil {
		return err
	}
	if c.outside != "-" {
		if c.outside, err = localcopy.Absolute(c.outside); err != nil {
			return err
		}
		if err := checkOutput(c.outside); err != nil {
			return err
		}
	}
	source, rebase := c.inside, ""
	if c.followLink {
		st, err := engine.ContainerStatPath(ctx, c.container, source)
		if err == nil && st.Mode&os.ModeSymlink != 0 {
			source, rebase = localcopy.Follow(source, localcopy.Beside(source, st.LinkTarget))
		}
	}
	content, st, err := engine.CopyFromContainer(ctx, c.container, source)
	if err != nil {
		return err
	}
	defer content.Close()
	if c.outside == "-" {
		_, err := io.Copy(struct{ io.Writer }{a.out}, content)
		return err
	}
	dest, err := localcopy.Destination(c.outside)
	if err != nil {
		return err
	}
	info := localcopy.Info{Path: source, Exists: true, IsDir: st.Mode.IsDir(), Rebase: rebase}
	counted := &countingReader{r: content}
	archive := io.ReadCloser(io.NopCloser(counted))
	if rebase != "" {
		_, name := localcopy.Split(source)
		archive = localcopy.Renamed(counted, localcopy.Rename(name, rebase))
	}
	defer archive.Close()
	dir, rename, err := localcopy.Place(info, dest)
	if err != nil {
		return err
	}
	renamed := localcopy.Renamed(archive, rename)
	defer renamed.Close()
	if err := localcopy.Unpack(renamed, dir); err != nil {
		return err
	}
	return a.copied(c, counted.n, c.outside)
}

// checkOutput refuses a destination whose directory is not there, and one that
// is neither file nor directory.
func checkOutput(path string) error {
	dir := filepath.Dir(filepath.Clean(path))
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("invalid output path: directory %q does not exist", dir)
	}
	info, err := os.Stat(path)
	if err != nil || info.IsDir() || info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("invalid output path: %q must be a directory or a regular file", path)
}

// copyIn copies to a container.
func (a *app) copyIn(ctx context.Context, c *copying) error {
	engine, err := a.client()
	if err != nil {
		return err
	}
	dest, err := copyTarget(ctx, engine, c)
	if err != nil {
		return err
	}
	if c.outside == "-" {
		if !dest.IsDir {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", c.container, c.inside)
		}
		return engine.CopyToContainer(ctx, c.container, dest.Path, c.archive, a.in)
	}
	path, err := localcopy.Absolute(c.outside)
	if err != nil {
		return err
	}
	info, err := localcopy.Source(path, c.followLink)
	if err != nil {
		return err
	}
	dir, rename, err := localcopy.Place(info, dest)
	if err != nil {
		return err
	}
	packed := localcopy.Pack(info)
	defer packed.Close()
	renamed := localcopy.Renamed(packed, rename)
	defer renamed.Close()
	counted := &countingReader{r: renamed}
	if err := engine.CopyToContainer(ctx, c.container, dir, c.archive, counted); err != nil {
		return err
	}
	return a.copied(c, counted.n, c.container+":"+dest.Path)
}

// copyTarget describes the destination in a container: what a link there leads
// to. What is not there may be made: the engine says whether.
func copyTarget(ctx context.Context, engine *client.Client, c *copying) (localcopy.Info, error) {
	dest := localcopy.Info{Path: c.inside}
	st, err := engine.ContainerStatPath(ctx, c.container, c.inside)
	if err == nil && st.Mode&os.ModeSymlink != 0 {
		dest.Path = localcopy.Beside(c.inside, st.LinkTarget)
		st, err = engine.ContainerStatPath(ctx, c.container, dest.Path)
	}
	if err != nil {
		return dest, nil
	}
	if !st.Mode.IsDir() && !st.Mode.IsRegular() {
		return dest, fmt.Errorf("destination \"%s:%s\" must be a directory or a regular file", c.container, c.inside)
	}
	dest.Exists, dest.IsDir = true, st.Mode.IsDir()
	return dest, nil
}

// copied says what was done, to people.
func (a *app) copied(c *copying, n int64, where string) error {
	if c.quiet {
		return nil
	}
	_, err := fmt.Fprintf(a.err, "Successfully copied %s to %s\n", units.HumanSizeWithPrecision(float64(n), 3), where)
	return err
}

// countingReader counts what passes.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func newDiff(a *app) *cobra.Command {
	var format string
	cmd := verb("diff [OPTIONS] CONTAINER", "Inspect changes to files or directories on a container's filesystem", 1, 1,
		func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			list, err := c.ContainerChanges(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			rows := make([]render.Change, len(list))
			for i := range list {
				rows[i] = render.NewChange(&list[i])
			}
			if format == "" {
				format = render.ChangeLine
			}
			return render.Rows(a.out, format, render.ChangeTable, render.ChangeHeader(), rows)
		})
	cmd.Flags().StringVar(&format, "format", "", listFormatHelp)
	cmd.ValidArgsFunction = a.completeContainer(anyState)
	return cmd
}
