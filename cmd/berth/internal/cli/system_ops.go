package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/render"
)

func newSystemOps(a *app) *cobra.Command {
	var quiet, noTrunc bool
	var format string
	cmd := verb("ops [OPTIONS]", "List what the engine is at work on, and what it waits for", 0, 0, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		list, err := c.Operations(cmd.Context())
		if err != nil {
			return err
		}
		if quiet && render.IsTable(format) {
			format = "{{.ID}}"
		}
		rows := make([]render.Operation, len(list))
		now := time.Now()
		for i := range list {
			rows[i] = render.NewOperation(&list[i], !noTrunc, now)
		}
		return render.Rows(a.out, format, render.OperationTable, render.OperationHeader(), rows)
	})
	cmd.Long = cmd.Short + `.

Each request that is not answered yet is an operation: starts and stops, pulls, exports,
and also the clients that follow a log, are attached or wait. An operation without a
number is the engine's own: files of something removed that somebody still uses.

berth system cancel ends an operation.`
	fs := cmd.Flags()
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only display operation IDs")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Do not truncate the output")
	fs.StringVar(&format, "format", "", listFormatHelp)
	cmd.ValidArgsFunction = noCompletion
	return cmd
}

func newSystemCancel(a *app) *cobra.Command {
	cmd := verb("cancel OPERATION [OPERATION...]", "End operations that the engine is at work on", 1, -1, func(cmd *cobra.Command, args []string) error {
		return a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, id string) error {
			return c.OperationCancel(ctx, id)
		})
	})
	cmd.Long = cmd.Short + `.

An operation that is cancelled gives up what it waits for and undoes what it has not
finished; whoever asked for it gets an error. What has happened stays: a container that
has had its stop signal may still end by it.`
	cmd.ValidArgsFunction = noCompletion
	return cmd
}
