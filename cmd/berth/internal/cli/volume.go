package cli

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/render"
)

// pairsFlag is a flag of KEY=VALUE that may be given several times.
type pairsFlag map[string]string

func (p *pairsFlag) String() string { return "" }
func (p *pairsFlag) Type() string   { return "map" }

func (p *pairsFlag) Set(v string) error {
	key, value, _ := strings.Cut(v, "=")
	if key == "" {
		return fmt.Errorf("invalid value %q: want KEY=VALUE", v)
	}
	if *p == nil {
		*p = pairsFlag{}
	}
	(*p)[key] = value
	return nil
}

func newVolumeCreate(a *app) *cobra.Command {
	var req volume.CreateRequest
	var opts, labels pairsFlag
	cmd := verb("create [OPTIONS] [VOLUME]", "Create a volume", 0, 1, func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			if req.Name != "" {
				return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
			}
			req.Name = args[0]
		}
		req.DriverOpts, req.Labels = opts, labels
		c, err := a.client()
		if err != nil {
			return err
		}
		made, err := c.VolumeCreate(cmd.Context(), &req)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, made.Name)
		return err
	})
	fs := cmd.Flags()
	fs.StringVarP(&req.Driver, "driver", "d", "local", "Specify volume driver name")
	fs.StringVar(&req.Name, "name", "", "Specify volume name")
	fs.Lookup("name").Hidden = true
	fs.VarP(&opts, "opt", "o", "Set driver specific options: type, device and o, as mount(8) has them")
	fs.Var(&labels, "label", "Set metadata for a volume")
	cmd.ValidArgsFunction = noCompletion
	return cmd
}

func newVolumeLs(a *app) *cobra.Command {
	var quiet bool
	var format string
	var filter filterFlag
	cmd := verb("ls [OPTIONS]", "List volumes", 0, 0, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		found, err := c.VolumeList(cmd.Context(), filter.Filters)
		if err != nil {
			return err
		}
		list := found.Volumes
		sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
		if quiet && render.IsTable(format) {
			format = "{{.Name}}"
		}
		rows := make([]render.Volume, len(list))
		for i := range list {
			rows[i] = render.NewVolume(&list[i])
		}
		return render.Rows(a.out, format, render.VolumeTable, render.VolumeHeader(), rows)
	})
	cmd.Aliases = []string{"list"}
	fs := cmd.Flags()
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	fs.StringVar(&format, "format", "", listFormatHelp)
	fs.VarP(&filter, "filter", "f", `Provide filter values (e.g. "dangling=true")`)
	cmd.ValidArgsFunction = noCompletion
	return cmd
}

func newVolumeRm(a *app) *cobra.Command {
	var force bool
	cmd := verb("rm [OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", 1, -1, func(cmd *cobra.Command, args []string) error {
		return a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, name string) error {
			return c.VolumeRemove(ctx, name, force)
		})
	})
	cmd.Aliases = []string{"remove"}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not fail for volumes that do not exist")
	cmd.ValidArgsFunction = a.completeVolumes
	return cmd
}

func newVolumePrune(a *app) *cobra.Command {
	var p pruning
	var all bool
	cmd := verb("prune [OPTIONS]", "Remove unused local volumes", 0, 0, func(cmd *cobra.Command, _ []string) error {
		if _, given := p.filter.Filters["all"]; given && all {
			return errors.New("conflicting options: cannot specify both --all and --filter all=1")
		}
		what := "This will remove anonymous local volumes not used by at least one container."
		if all {
			what = "This will remove all local volumes not used by at least one container."
		}
		if ok, err := a.confirm(p.force, what); !ok {
			return err
		}
		reclaimed, err := a.pruneVolumes(cmd.Context(), p.filter.Filters, all)
		if err != nil {
			return err
		}
		return a.reclaimed(reclaimed)
	})
	p.addFlags(cmd)
	cmd.Flags().Lookup("filter").Usage = `Provide filter values (e.g. "label=<label>")`
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	return cmd
}

func (a *app) pruneVolumes(ctx context.Context, given client.Filters, all bool) (uint64, error) {
	f := client.Filters{}
	for name, values := range given {
		f[name] = values
	}
	if all {
		f["all"] = map[string]bool{"true": true}
	}
	c, err := a.client()
	if err != nil {
		return 0, err
	}
	report, err := c.VolumePrune(ctx, f)
	if err != nil {
		return 0, err
	}
	if len(report.VolumesDeleted) > 0 {
		fmt.Fprintln(a.out, "Deleted Volumes:")
		for _, name := range report.VolumesDeleted {
			fmt.Fprintln(a.out, name)
		}
		fmt.Fprintln(a.out)
	}
	return report.SpaceReclaimed, nil
}

func (a *app) completeVolumes(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	c := a.asking()
	if c == nil {
		return nil, noFiles
	}
	list, err := c.VolumeList(cmd.Context(), nil)
	if err != nil {
		return nil, noFiles
	}
	var names []string
	for _, v := range list.Volumes {
		names = append(names, v.Name)
	}
	return without(names, args), noFiles
}

func newVolumeGroup(a *app) *cobra.Command {
	return group("volume", "Manage volumes",
		newVolumeCreate(a), newInspectOf(a, "volume"), newVolumeLs(a), newVolumePrune(a), newVolumeRm(a))
}
