package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

func runState(a *app, fs *flag.FlagSet, args []string) (int, error) {
	return a.onContainer(fs, args, func(c *oci.Container) error {
		st, err := c.State()
		if err != nil {
			return err
		}
		return printJSON(a, st)
	})
}

func printJSON(a *app, v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func runKill(a *app, fs *flag.FlagSet, args []string) (int, error) {
	all := boolFlag(fs, "all", "a", false, "signal every process of the container")
	id, code, err := parseID(fs, args, 2)
	if err != nil {
		return code, err
	}
	sig := unix.SIGTERM
	if fs.NArg() == 2 {
		if sig, err = parseSignal(fs.Arg(1)); err != nil {
			return 1, err
		}
	}
	c, err := a.store().Open(id)
	if err != nil {
		return 1, err
	}
	defer c.Close()
	return 0, c.Kill(sig, *all)
}

// parseSignal reads a number, a name (TERM) or a full name (SIGTERM).
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("unknown signal %q", s))
}

func runDelete(a *app, fs *flag.FlagSet, args []string) (int, error) {
	force := boolFlag(fs, "force", "f", false, "kill the container if it runs; no error if it does not exist")
	id, code, err := parseID(fs, args, 1)
	if err != nil {
		return code, err
	}
	c, err := a.store().Open(id)
	if *force && errors.Is(err, errdefs.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 1, err
	}
	return 0, c.Delete(*force)
}

func runPause(a *app, fs *flag.FlagSet, args []string) (int, error) {
	return a.onContainer(fs, args, func(c *oci.Container) error { return c.Pause() })
}

func runResume(a *app, fs *flag.FlagSet, args []string) (int, error) {
	return a.onContainer(fs, args, func(c *oci.Container) error { return c.Resume() })
}

// listed is a line of list, with runc's field names.
type listed struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	Pid         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

func runList(a *app, fs *flag.FlagSet, args []string) (int, error) {
	format := stringFlag(fs, "format", "f", "table", "table or json")
	quiet := boolFlag(fs, "quiet", "q", false, "only ids")
	if code, done := parse(fs, args, nil); done {
		return code, errUsage
	}
	if *format != "table" && *format != "json" {
		return 1, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("--format %q: table or json", *format))
	}
	list, broken := a.list() // those that can be read are shown
	switch {
	case *quiet:
		for _, c := range list {
			fmt.Fprintln(a.stdout, c.ID)
		}
		return 0, broken
	case *format == "json":
		return 0, errors.Join(json.NewEncoder(a.stdout).Encode(list), broken)
	}
	w := tabwriter.NewWriter(a.stdout, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, c := range list {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", c.ID, c.Pid, c.Status, c.Bundle, c.Created.Format(time.RFC3339Nano), c.Owner)
	}
	return 0, errors.Join(w.Flush(), broken)
}

// list reads all containers; the error is that of those which cannot be read.
func (a *app) list() ([]listed, error) {
	ids, err := a.store().List()
	if err != nil {
		return nil, err
	}
	out := []listed{}
	var broken []error
	for _, id := range ids {
		c, err := a.store().Open(id)
		if errors.Is(err, errdefs.ErrNotFound) { // deleted meanwhile
			continue
		}
		var st *specs.State
		if err == nil {
			st, err = c.State()
			c.Close()
		}
		if err != nil {
			broken = append(broken, err)
			continue
		}
		out = append(out, listed{st.Version, id, st.Pid, st.Status, st.Bundle, c.Created, st.Annotations, owner()})
	}
	return out, errors.Join(broken...)
}

// owner is the user the containers of this root belong to: only who runs
// berth-oci can have made them.
func owner() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return strconv.Itoa(os.Geteuid())
}
