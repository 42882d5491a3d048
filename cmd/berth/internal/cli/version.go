package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/render"
)

// clientAPI is the newest Docker Engine API the command knows the words of.
const clientAPI = "1.56"

// version is the build's version, set by the linker (-X with this package's
// path); empty means what the Go toolchain knows.
var version string

// clientVersion describes this binary.
func clientVersion() render.ClientVersion {
	v := render.ClientVersion{Version: "devel", APIVersion: clientAPI, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	if version != "" {
		v.Version = version
	}
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.GitCommit = s.Value
		case "vcs.time":
			v.BuildTime = s.Value
		}
	}
	return v
}

func newVersion(a *app) *cobra.Command {
	var format string
	var clientOnly bool
	cmd := verb("version [OPTIONS]", "Show the version of berth and of the engine", 0, 0, func(cmd *cobra.Command, _ []string) error {
		return a.version(cmd.Context(), format, clientOnly)
	})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	cmd.Flags().BoolVar(&clientOnly, "client", false, "Show the version of berth only")
	cmd.ValidArgsFunction = noCompletion
	return cmd
}

// version prints both versions. It does not start an engine; that none runs is
// an error only for those whose next command would not start it.
func (a *app) version(ctx context.Context, format string, clientOnly bool) error {
	v := render.Versions{Client: clientVersion()}
	var failed error
	startable := false
	if !clientOnly {
		var server *system.VersionResponse
		server, startable, failed = a.serverVersion(ctx)
		v.Server = server
	}
	if format != "" {
		return errors.Join(render.One(a.out, format, v), failed)
	}
	if err := render.Version(a.out, &v); err != nil {
		return err
	}
	if startable {
		_, err := fmt.Fprint(a.out, "\nServer: not running; the next command that needs it starts it\n")
		return err
	}
	return failed
}

func (a *app) serverVersion(ctx context.Context) (v *system.VersionResponse, startable bool, err error) {
	c, err := a.client()
	if err != nil {
		return nil, false, err
	}
	start := c.Start
	c.Start = nil
	found, err := c.Version(ctx)
	var gone *client.UnreachableError
	if errors.As(err, &gone) && gone.Absent() && start != nil {
		return nil, os.Geteuid() == 0, nil
	}
	if err != nil {
		return nil, false, err
	}
	return &found, false, nil
}
