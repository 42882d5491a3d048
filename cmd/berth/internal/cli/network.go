package cli

import (
	"context"
	"fmt"
	"sort"

	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/render"
)

func newNetworkLs(a *app) *cobra.Command {
	var quiet, noTrunc bool
	var format string
	var filter filterFlag
	cmd := verb("ls [OPTIONS]", "List networks", 0, 0, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		list, err := c.NetworkList(cmd.Context(), filter.Filters)
		if err != nil {
			return err
		}
		sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
		if quiet && render.IsTable(format) {
			format = "{{.ID}}"
		}
		rows := make([]render.Network, len(list))
		for i := range list {
			rows[i] = render.NewNetwork(&list[i], !noTrunc)
		}
		return render.Rows(a.out, format, render.NetworkTable, render.NetworkHeader(), rows)
	})
	cmd.Aliases = []string{"list"}
	fs := cmd.Flags()
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Do not truncate the output")
	fs.StringVar(&format, "format", "", listFormatHelp)
	fs.VarP(&filter, "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
	cmd.ValidArgsFunction = noCompletion
	return cmd
}

func newNetworkPrune(a *app) *cobra.Command {
	var p pruning
	cmd := verb("prune [OPTIONS]", "Remove all unused networks", 0, 0, func(cmd *cobra.Command, _ []string) error {
		if ok, err := a.confirm(p.force, "This will remove all custom networks not used by at least one container."); !ok {
			return err
		}
		_, err := a.pruneNetworks(cmd.Context(), p.filter.Filters)
		return err
	})
	p.addFlags(cmd)
	return cmd
}

// pruneNetworks returns what that frees on disk: nothing to speak of.
func (a *app) pruneNetworks(ctx context.Context, f client.Filters) (uint64, error) {
	c, err := a.client()
	if err != nil {
		return 0, err
	}
	report, err := c.NetworkPrune(ctx, f)
	if err != nil {
		return 0, err
	}
	if len(report.NetworksDeleted) > 0 {
		fmt.Fprintln(a.out, "Deleted Networks:")
		for _, name := range report.NetworksDeleted {
			fmt.Fprintln(a.out, name)
		}
		fmt.Fprintln(a.out)
	}
	return 0, nil
}

func newNetworkGroup(a *app) *cobra.Command {
	return group("network", "Manage networks", newInspectOf(a, "network"), newNetworkLs(a), newNetworkPrune(a))
}
