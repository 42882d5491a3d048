package cli

import (
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/manual"
)

func newGenMan(a *app) *cobra.Command {
	cmd := verb("gen-man DIRECTORY", "Write the manual pages of all commands", 1, 1, func(_ *cobra.Command, args []string) error {
		return manual.Write(newRoot(a, nil), args[0])
	})
	cmd.Hidden = true
	return cmd
}
