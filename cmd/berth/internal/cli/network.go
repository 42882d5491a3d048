package cli

import (
	"sort"

	"github.com/spf13/cobra"

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

func newNetworkGroup(a *app) *cobra.Command {
	return group("network", "Manage networks", newInspectOf(a, "network"), newNetworkLs(a))
}
