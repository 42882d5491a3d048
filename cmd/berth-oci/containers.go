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
	id, code, err := parseID(fs, args, 1)
	if err != nil {
		return code, err
	}
	st, err := a.look(id)
	if err != nil {
		return 1, err
	}
	return 0, printJSON(a, st)
}

// look reads a container's state, without waiting for whoever changes it.
func (a *app) look(id string) (*containerState, error) {
	c, err := a.store().Look(id)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	st, rootfs, err := c.Details()
	if err != nil {
		return nil, err
	}
	uid, err := c.Owner()
	if err != nil {
		return nil, err
	}
	return &containerState{st.Version, id, st.Pid, st.Status, st.Bundle, rootfs, c.Created, st.Annotations, userName(uid)}, nil
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
	if errors.Is(err, errdefs.ErrNotFound) {
		finished, ferr := a.store().FinishDelete(id)
		if finished || ferr != nil || *force {
			return 0, ferr
		}
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

// containerState is what state prints, and list a line for each of; runc's
// fields.
type containerState struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	Pid         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

func runList(a *app, flags *flag.FlagSet, args []string) (int, error) {
	format := stringFlag(flags, "format", "f", "table", "table or json")
	quiet := boolFlag(flags, "quiet", "q", false, "only ids")
	if code, done := parse(flags, args, nil); done {
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
func (a *app) list() ([]*containerState, error) {
	ids, err := a.store().List()
	if err != nil {
		return nil, err
	}
	out := []*containerState{}
	var broken []error
	for _, id := range ids {
		st, err := a.look(id)
		switch {
		case err == nil:
			out = append(out, st)
		case !errors.Is(err, errdefs.ErrNotFound): // not deleted meanwhile
			broken = append(broken, err)
		}
	}
	return out, errors.Join(broken...)
}

// userName is the name of a user of the host, "#1000" for one without.
func userName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	b, _ := os.ReadFile("/etc/passwd") // without it nobody has a name
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == number {
			return f[0]
		}
	}
	return "#" + number
}
