package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/imageref"
	"github.com/berth-containers/berth/cmd/berth/internal/render"
)

// imageListing are the flags of images.
type imageListing struct {
	all, digests, quiet, noTrunc, tree bool
	format                             string
	filter                             filterFlag
}

func newImages(a *app) *cobra.Command {
	var l imageListing
	cmd := verb("images [OPTIONS] [REPOSITORY[:TAG]]", "List images", 0, 1, func(cmd *cobra.Command, args []string) error {
		return a.images(cmd.Context(), &l, args)
	})
	fs := cmd.Flags()
	fs.BoolVarP(&l.all, "all", "a", false, "Show all images (default hides intermediate images)")
	fs.BoolVar(&l.digests, "digests", false, "Show digests")
	fs.BoolVarP(&l.quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVar(&l.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.StringVar(&l.format, "format", "", listFormatHelp)
	fs.BoolVar(&l.tree, "tree", false, "List images with what they have on the disk by platform")
	fs.VarP(&l.filter, "filter", "f", "Filter output based on conditions provided")
	cmd.ValidArgsFunction = firstOnly(a.completeImages, noFiles)
	for _, other := range []string{"quiet", "no-trunc", "digests", "format"} {
		cmd.MarkFlagsMutuallyExclusive("tree", other)
	}
	return cmd
}

func (a *app) images(ctx context.Context, l *imageListing, args []string) error {
	filters := l.filter.Filters
	if len(args) > 0 {
		if filters == nil {
			filters = client.Filters{}
		}
		filters.Add("reference", args[0])
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	list, err := c.ImageList(ctx, client.ImageListOptions{
		All: l.all, Filters: filters, Manifests: l.tree,
		SharedSize: strings.Contains(l.format, ".SharedSize") || strings.Contains(l.format, ".UniqueSize"),
	})
	if err != nil {
		return err
	}
	if l.tree {
		return render.ImageTree(a.out, list)
	}
	format, table := l.format, render.ImageTable
	if l.digests {
		table = render.ImageDigestTable
	}
	if l.quiet && render.IsTable(format) {
		format = "{{.ID}}"
	}
	digests := l.digests || strings.Contains(format, ".Digest")
	now := time.Now()
	var rows []render.Image
	for i := range list {
		rows = append(rows, render.NewImages(&list[i], !l.noTrunc, digests, now)...)
	}
	return render.Rows(a.out, format, table, render.ImageHeader(), rows)
}

func newPull(a *app) *cobra.Command {
	var allTags, quiet bool
	var platform string
	cmd := verb("pull [OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", 1, 1,
		func(cmd *cobra.Command, args []string) error {
			ref := imageref.Parse(args[0])
			switch {
			case allTags && (ref.Tag != "" || ref.Digest != ""):
				return errors.New("tag can't be used with --all-tags/-a")
			case !allTags && ref.Tag == "" && ref.Digest == "":
				ref.Tag = "latest"
				if !quiet {
					fmt.Fprintln(a.out, "Using default tag: latest")
				}
			}
			return a.pull(cmd.Context(), ref, platform, quiet)
		})
	fs := cmd.Flags()
	fs.BoolVarP(&allTags, "all-tags", "a", false, "Download all tagged images in the repository")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&platform, "platform", "", "Set platform if server is multi-platform capable")
	cmd.ValidArgsFunction = noCompletion
	return cmd
}

func (a *app) pull(ctx context.Context, ref imageref.Ref, platform string, quiet bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	body, err := c.ImagePull(ctx, client.PullOptions{Repo: ref.Repo, Tag: ref.Version(), Platform: platform, Auth: a.authFor(ref.Repo)})
	if err != nil {
		return err
	}
	if err := a.showTransfer(body, quiet); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.out, canonical(ref))
	return err
}

// showTransfer shows the progress of a pull or a push to its end; quiet shows none.
func (a *app) showTransfer(body io.ReadCloser, quiet bool) error {
	defer body.Close()
	d := a.display(a.out)
	if quiet {
		d.Out, d.Size = io.Discard, nil
	}
	_, err := d.Show(body)
	return err
}

// canonical is a name with its registry, as Docker prints after a pull.
func canonical(ref imageref.Ref) string {
	first, _, hasPath := strings.Cut(ref.Repo, "/")
	switch {
	case !hasPath:
		ref.Repo = "docker.io/library/" + ref.Repo
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		ref.Repo = "docker.io/" + ref.Repo
	}
	return ref.String()
}

func newImport(a *app) *cobra.Command {
	var opt client.ImportOptions
	var changes listFlag
	cmd := verb("import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]", "Import the contents from a tarball to create a filesystem image", 1, 2,
		func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				opt.Ref = args[1]
			}
			opt.Changes = changes
			return a.importImage(cmd.Context(), opt, args[0])
		})
	fs := cmd.Flags()
	fs.VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	fs.StringVarP(&opt.Message, "message", "m", "", "Set commit message for imported image")
	fs.StringVar(&opt.Platform, "platform", "", "Set platform if server is multi-platform capable")
	return cmd
}

func (a *app) importImage(ctx context.Context, opt client.ImportOptions, source string) error {
	switch {
	case source == "-":
		opt.Data = a.in
	case strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://"):
		opt.Source = source
	default:
		f, err := os.Open(source)
		if err != nil {
			return err
		}
		defer f.Close()
		opt.Data = f
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	body, err := c.ImageImport(ctx, opt)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = a.display(a.out).Show(body)
	return err
}

func newTag(a *app) *cobra.Command {
	cmd := verb("tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", 2, 2,
		func(cmd *cobra.Command, args []string) error {
			ref := withLatest(imageref.Parse(args[1]))
			if ref.Digest != "" {
				return errors.New("refusing to create a tag with a digest reference")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.ImageTag(cmd.Context(), args[0], ref.Repo, ref.Tag)
		})
	cmd.ValidArgsFunction = firstOnly(a.completeImages, noFiles)
	return cmd
}

func newRmi(a *app) *cobra.Command {
	var force, noPrune bool
	cmd := verb("rmi [OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", 1, -1, func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		var errs []error
		for _, ref := range args {
			removed, err := c.ImageRemove(cmd.Context(), ref, force, noPrune)
			a.printRemoved(removed)
			if force && client.NotFound(err) {
				err = a.warn(err)
			}
			if err != nil && !repeated(errs, err) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force removal of the image")
	cmd.Flags().BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	cmd.ValidArgsFunction = a.completeImages
	return cmd
}

func (a *app) printRemoved(removed []image.DeleteResponse) {
	for _, r := range removed {
		if r.Deleted != "" {
			fmt.Fprintln(a.out, "Deleted:", r.Deleted)
		} else {
			fmt.Fprintln(a.out, "Untagged:", r.Untagged)
		}
	}
}

func newHistory(a *app) *cobra.Command {
	var quiet, noTrunc, human bool
	var format string
	cmd := verb("history [OPTIONS] IMAGE", "Show the history of an image", 1, 1, func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		list, err := c.ImageHistory(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if quiet && render.IsTable(format) {
			format = "{{.ID}}"
		}
		table := render.HistoryTable
		if !human {
			table = render.HistoryTimeTable
		}
		now := time.Now()
		rows := make([]render.History, len(list))
		for i := range list {
			rows[i] = render.NewHistory(&list[i], !noTrunc, human, now)
		}
		return render.Rows(a.out, format, table, render.HistoryHeader(), rows)
	})
	fs := cmd.Flags()
	fs.BoolVarP(&human, "human", "H", true, "Print sizes and dates in human readable format")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	fs.StringVar(&format, "format", "", listFormatHelp)
	cmd.ValidArgsFunction = firstOnly(a.completeImages, noFiles)
	return cmd
}

func newImagePrune(a *app) *cobra.Command {
	var p pruning
	var all bool
	cmd := verb("prune [OPTIONS]", "Remove unused images", 0, 0, func(cmd *cobra.Command, _ []string) error {
		what := "This will remove all dangling images."
		if all {
			what = "This will remove all images without at least one container associated to them."
		}
		if ok, err := a.confirm(p.force, what); !ok {
			return err
		}
		reclaimed, err := a.pruneImages(cmd.Context(), p.filter.Filters, all)
		if err != nil {
			return err
		}
		return a.reclaimed(reclaimed)
	})
	p.addFlags(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	return cmd
}

func (a *app) pruneImages(ctx context.Context, given client.Filters, all bool) (uint64, error) {
	f := client.Filters{}
	for name, values := range given {
		f[name] = values
	}
	f["dangling"] = map[string]bool{fmt.Sprint(!all): true}
	c, err := a.client()
	if err != nil {
		return 0, err
	}
	report, err := c.ImagePrune(ctx, f)
	if err != nil {
		return 0, err
	}
	if len(report.ImagesDeleted) > 0 {
		fmt.Fprintln(a.out, "Deleted Images:")
		for _, r := range report.ImagesDeleted {
			if r.Untagged != "" {
				fmt.Fprintln(a.out, "untagged:", r.Untagged)
			} else {
				fmt.Fprintln(a.out, "deleted:", r.Deleted)
			}
		}
		fmt.Fprintln(a.out)
	}
	return report.SpaceReclaimed, nil
}

func newImageGroup(a *app) *cobra.Command {
	return group("image", "Manage images",
		newHistory(a), newImport(a), newInspectOf(a, "image"), newLoad(a),
		renamed(newImages(a), "ls", "list"), newImagePrune(a), newPull(a), newPush(a),
		renamed(newRmi(a), "rm", "remove"), newSave(a), newTag(a))
}
