package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/render"
)

func newSystemUpgradeKeeper(a *app) *cobra.Command {
	var format string
	cmd := verb("upgrade-keeper [OPTIONS]", "Let the keeper become the installed berth-oci", 0, 0, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		done, err := c.UpgradeKeeper(cmd.Context())
		if err != nil {
			return err
		}
		if format != "" {
			return render.One(a.out, format, done)
		}
		_, err = fmt.Fprintf(a.out, "keeper %d: version %s, before %s\n", done.After.Pid, done.After.Version, done.Before.Version)
		return err
	})
	cmd.Long = cmd.Short + `, while containers run on: the process stays the same and becomes
another program. Streams, logs, exit codes and who is attached go over to it.

A program that cannot go on from the running keeper is refused, and nothing changes.`
	cmd.Flags().StringVar(&format, "format", "", inspectFormatHelp)
	cmd.ValidArgsFunction = noCompletion
	return cmd
}
