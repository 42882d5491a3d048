package cli

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/render"
)

// listing are the flags of ps.
type listing struct {
	all, size, quiet, noTrunc, latest bool
	last                              int
	format                            string
	filter                            filterFlag
}

func newPs(a *app) *cobra.Command {
	var l listing
	cmd := verb("ps [OPTIONS]", "List containers", 0, 0, func(cmd *cobra.Command, _ []string) error {
		return a.ps(cmd.Context(), &l)
	})
	fs := cmd.Flags()
	fs.BoolVarP(&l.all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVarP(&l.size, "size", "s", false, "Display total file sizes")
	fs.BoolVarP(&l.quiet, "quiet", "q", false, "Only display container IDs")
	fs.BoolVar(&l.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&l.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	fs.IntVarP(&l.last, "last", "n", -1, "Show n last created containers (includes all states)")
	fs.StringVar(&l.format, "format", "", listFormatHelp)
	fs.VarP(&l.filter, "filter", "f", "Filter output based on conditions provided")
	cmd.ValidArgsFunction = noCompletion
	return cmd
}

func (a *app) ps(ctx context.Context, l *listing) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	opt := client.ListOptions{All: l.all, Limit: l.last, Filters: l.filter.Filters}
	if l.latest && l.last <= 0 {
		opt.Limit = 1
	}
	opt.Size = l.size || strings.Contains(l.format, ".Size")
	list, err := c.ContainerList(ctx, opt)
	if err != nil {
		return err
	}
	format, table := l.format, render.ContainerTable
	if l.size {
		table += "\t{{.Size}}"
	}
	if l.quiet && render.IsTable(format) {
		format = "{{.ID}}"
	}
	now := time.Now()
	rows := make([]render.Container, len(list))
	for i := range list {
		rows[i] = render.NewContainer(&list[i], !l.noTrunc, now)
	}
	return render.Rows(a.out, format, table, render.ContainerHeader(), rows)
}

// logging are the flags of logs.
type logging struct {
	client.LogsOptions
	since, until string
}

func newLogs(a *app) *cobra.Command {
	var l logging
	cmd := verb("logs [OPTIONS] CONTAINER", "Fetch the logs of a container", 1, 1, func(cmd *cobra.Command, args []string) error {
		return a.logs(cmd.Context(), &l, args[0])
	})
	fs := cmd.Flags()
	fs.BoolVarP(&l.Follow, "follow", "f", false, "Follow log output")
	fs.BoolVarP(&l.Timestamps, "timestamps", "t", false, "Show timestamps")
	fs.BoolVar(&l.Details, "details", false, "Show extra details provided to logs")
	fs.StringVar(&l.since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.StringVar(&l.until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.StringVarP(&l.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	cmd.ValidArgsFunction = a.completeContainer(anyState)
	return cmd
}

func (a *app) logs(ctx context.Context, l *logging, ref string) error {
	now := time.Now()
	var err error
	if l.Since, err = timestamp(l.since, now); err != nil {
		return err
	}
	if l.Until, err = timestamp(l.until, now); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	out, err := c.ContainerLogs(ctx, ref, l.LogsOptions)
	if err != nil {
		return err
	}
	defer out.Close()
	raw := out.Raw
	if !out.Raw && !out.Multiplexed { // an engine that does not say
		found, err := c.ContainerDescribe(ctx, ref)
		if err != nil {
			return err
		}
		raw = found.Config.Tty
	}
	if raw {
		_, err = io.Copy(struct{ io.Writer }{a.out}, out)
	} else {
		_, err = stdcopy.StdCopy(a.out, a.err, out)
	}
	return err
}

func newTop(a *app) *cobra.Command {
	var live bool
	cmd := verb("top [CONTAINER [ps OPTIONS]]", "Show all containers live, or the running processes of one", 0, -1,
		func(cmd *cobra.Command, args []string) error {
			if live || len(args) == 0 {
				return a.live(cmd.Context(), args)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			procs, err := c.ContainerTop(cmd.Context(), args[0], strings.Join(args[1:], " "))
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(a.out, 20, 1, 3, ' ', 0)
			fmt.Fprintln(w, strings.Join(procs.Titles, "\t"))
			for _, p := range procs.Processes {
				fmt.Fprintln(w, strings.Join(p, "\t"))
			}
			return w.Flush()
		})
	cmd.Flags().BoolVar(&live, "live", false, "Show all containers live, or those with CONTAINER in their names, in a view that fills the terminal")
	cmd.Flags().SetInterspersed(false)
	cmd.ValidArgsFunction = a.completeContainer(isRunning)
	return cmd
}

func newPort(a *app) *cobra.Command {
	cmd := verb("port CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings or a specific mapping for the container", 1, 2,
		func(cmd *cobra.Command, args []string) error { return a.port(cmd.Context(), args) })
	cmd.ValidArgsFunction = a.completeContainer(isRunning)
	return cmd
}

func (a *app) port(ctx context.Context, args []string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	found, err := c.ContainerDescribe(ctx, args[0])
	if err != nil {
		return err
	}
	ports := network.PortMap{}
	if found.NetworkSettings != nil {
		ports = found.NetworkSettings.Ports
	}
	if len(args) == 1 {
		var lines []string
		for p, bindings := range ports {
			for _, b := range bindings {
				lines = append(lines, p.String()+" -> "+binding(b))
			}
		}
		sort.Strings(lines)
		for _, line := range lines {
			fmt.Fprintln(a.out, line)
		}
		return nil
	}
	wanted, err := network.ParsePort(args[1])
	if err != nil {
		return err
	}
	bindings := ports[wanted]
	if len(bindings) == 0 {
		return &hinted{
			error: fmt.Errorf("no public port '%s' published for %s", args[1], args[0]),
			hint:  "berth port " + args[0] + " lists what is published",
		}
	}
	for _, b := range bindings {
		fmt.Fprintln(a.out, binding(b))
	}
	return nil
}

func binding(b network.PortBinding) string {
	ip := ""
	if b.HostIP.IsValid() {
		ip = b.HostIP.String()
	}
	if strings.Contains(ip, ":") {
		ip = "[" + ip + "]"
	}
	return ip + ":" + b.HostPort
}
