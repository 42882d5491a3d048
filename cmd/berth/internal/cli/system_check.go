package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/render"
)

func newSystemCheck(a *app) *cobra.Command {
	var repair bool
	var format string
	cmd := verb("check [OPTIONS]", "Compare the engine's records with kernel and disk", 0, 0, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		report, err := c.SystemCheck(cmd.Context(), repair)
		if err != nil {
			return err
		}
		if format != "" {
			err = render.One(a.out, format, report)
		} else {
			err = render.Check(a.out, report)
		}
		if err == nil && len(report.Findings) > 0 {
			return exitStatus(1)
		}
		return err
	})
	cmd.Long = fmt.Sprintf(`%s: processes, cgroups, network namespaces, links, firewall and
mounts on the one side, images, layers, containers' files and volumes on the other.

Each finding names the object, what is wrong and the remedy. With --repair the engine
applies the remedies it can, and says what it did; it never ends a container that is as
it should be, and never deletes what a user has made.

The exit status is 1 when something was found, repaired or not.`, cmd.Short)
	fs := cmd.Flags()
	fs.BoolVar(&repair, "repair", false, "Mend what can be mended")
	fs.StringVar(&format, "format", "", inspectFormatHelp)
	cmd.ValidArgsFunction = noCompletion
	return cmd
}
