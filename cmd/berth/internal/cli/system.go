package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/render"
)

func newEvents(a *app) *cobra.Command {
	var since, until, format string
	var filter filterFlag
	cmd := verb("events [OPTIONS]", "Get real time events from the engine", 0, 0, func(cmd *cobra.Command, _ []string) error {
		now := time.Now()
		from, err := timestamp(since, now)
		if err != nil {
			return err
		}
		to, err := timestamp(until, now)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		stream, err := c.Events(cmd.Context(), filter.Filters, from, to)
		if err != nil {
			return err
		}
		return stream.Each(func(m *events.Message) error {
			if format != "" {
				return render.One(a.out, format, m)
			}
			return render.Event(a.out, m)
		})
	})
	fs := cmd.Flags()
	fs.StringVar(&since, "since", "", "Show all events created since timestamp")
	fs.StringVar(&until, "until", "", "Stream events until this timestamp")
	fs.StringVar(&format, "format", "", inspectFormatHelp)
	fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	cmd.ValidArgsFunction = noCompletion
	return cmd
}

func newInfo(a *app) *cobra.Command {
	var format string
	cmd := verb("info [OPTIONS]", "Display system-wide information", 0, 0, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		raw, err := c.Info(cmd.Context())
		if err != nil {
			return err
		}
		var info system.Info
		if format != "" {
			return a.printObject(format, raw, &info)
		}
		if err := json.Unmarshal(raw, &info); err != nil {
			return fmt.Errorf("decode the engine's information: %w", err)
		}
		if err := render.Info(a.out, clientVersion().Version, &info); err != nil {
			return err
		}
		for _, w := range info.Warnings {
			fmt.Fprintln(a.err, w)
		}
		return nil
	})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	cmd.ValidArgsFunction = noCompletion
	return cmd
}

func newSystemDf(a *app) *cobra.Command {
	var verbose bool
	var format string
	cmd := verb("df [OPTIONS]", "Show disk usage of the engine", 0, 0, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		usage, err := c.DiskUsage(cmd.Context(), verbose)
		if err != nil {
			return err
		}
		if verbose {
			return a.diskUsage(usage, format)
		}
		return render.Rows(a.out, format, render.DiskUsageTable, render.DiskUsageHeader(), render.NewDiskUsage(usage))
	})
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	cmd.Flags().StringVar(&format, "format", "", listFormatHelp)
	cmd.ValidArgsFunction = noCompletion
	return cmd
}

// diskUsage prints every image, container and volume.
func (a *app) diskUsage(usage *client.DiskUsage, format string) error {
	details := render.NewDiskUsageDetails(usage, render.IsTable(format), time.Now())
	if format != "" && format != "table" {
		return render.One(a.out, format, details)
	}
	fmt.Fprint(a.out, "Images space usage:\n\n")
	if err := render.Rows(a.out, "", render.DiskUsageImageTable, render.ImageHeader(), details.Images); err != nil {
		return err
	}
	fmt.Fprint(a.out, "\nContainers space usage:\n\n")
	if err := render.Rows(a.out, "", render.DiskUsageContainerTable, render.ContainerHeader(), details.Containers); err != nil {
		return err
	}
	fmt.Fprint(a.out, "\nLocal Volumes space usage:\n\n")
	return render.Rows(a.out, "", render.DiskUsageVolumeTable, render.VolumeHeader(), details.Volumes)
}

func newSystemPrune(a *app) *cobra.Command {
	var p pruning
	var all, volumes bool
	cmd := verb("prune [OPTIONS]", "Remove unused data", 0, 0, func(cmd *cobra.Command, _ []string) error {
		images := "all dangling images"
		if all {
			images = "all images without at least one container associated to them"
		}
		if _, given := p.filter.Filters["until"]; given && volumes {
			return errors.New("the \"until\" filter is not supported with \"--volumes\"")
		}
		what := "This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
		if volumes {
			what += "  - all anonymous volumes not used by at least one container\n"
		}
		what += "  - " + images + "\n"
		if names := p.filter.text(); names != "" {
			what += "\n  Items to be pruned will be filtered with:\n" + names
		}
		if ok, err := a.confirm(p.force, what); !ok {
			return err
		}
		return a.pruneAll(cmd.Context(), &p, all, volumes)
	})
	p.addFlags(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused images not just dangling ones")
	cmd.Flags().BoolVar(&volumes, "volumes", false, "Prune anonymous volumes")
	return cmd
}

// pruneAll removes, in the order that lets each make room for the next:
// containers hold networks, volumes and images. What was freed before an error
// is told all the same.
func (a *app) pruneAll(ctx context.Context, p *pruning, all, volumes bool) error {
	f := p.filter.Filters
	steps := []func() (uint64, error){
		func() (uint64, error) { return a.pruneContainers(ctx, f) },
		func() (uint64, error) { return a.pruneNetworks(ctx, f) },
		func() (uint64, error) { return a.pruneImages(ctx, f, all) },
	}
	if volumes {
		steps = slices.Insert(steps, 2, func() (uint64, error) { return a.pruneVolumes(ctx, f, false) })
	}
	var total uint64
	for _, step := range steps {
		n, err := step()
		total += n
		if err != nil {
			return errors.Join(err, a.reclaimed(total))
		}
	}
	return a.reclaimed(total)
}

func newSystemGroup(a *app) *cobra.Command {
	return group("system", "Manage the engine", newSystemCancel(a), newSystemCheck(a), newSystemDf(a), newEvents(a), newInfo(a), newSystemOps(a), newSystemPrune(a), newSystemUpgradeKeeper(a))
}
