// Package resctrl gives processes a share of the processor's caches and memory
// bandwidth, and counts their use of both, by the kernel's resctrl filesystem
// (Documentation/filesystems/resctrl.rst): Intel's RDT and what other makers have
// of it.
package resctrl

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// Plan says what a container needs of resctrl. Make one with [New].
type Plan struct {
	// Class is the class of service, a directory of resctrl's root; "" is the
	// root itself, the class of everything else.
	Class string
	// Own: the class is the container's alone, made with it and removed with it.
	Own bool
	// Schemata are the class's shares, in the order they are to be written;
	// nil leaves them.
	Schemata []string
	// Monitor is the container's monitoring group in the class, "" for none.
	Monitor string
}

// New reads the specification of the container named id (runtime-spec,
// config-linux.md, "IntelRdt").
func New(rdt *specs.LinuxIntelRdt, id string) (*Plan, error) {
	p := &Plan{Class: rdt.ClosID}
	switch c := rdt.ClosID; {
	case c == "":
		p.Class, p.Own = id, true
	case c == "/":
		p.Class = ""
	case c == "." || c == ".." || strings.ContainsAny(c, "/\n\x00"):
		return nil, fmt.Errorf("closID %q: must be a name without slashes, or /", c)
	}
	if rdt.EnableMonitoring {
		p.Monitor = id
	}
	for _, s := range []struct{ field, prefix, line string }{
		{"l3CacheSchema", "", rdt.L3CacheSchema}, {"memBwSchema", "MB:", rdt.MemBwSchema},
	} {
		if s.line == "" {
			continue
		}
		if !strings.HasPrefix(s.line, s.prefix) {
			return nil, fmt.Errorf("%s %q: must begin with %s", s.field, s.line, s.prefix)
		}
		p.Schemata = append(p.Schemata, s.line)
	}
	p.Schemata = append(p.Schemata, rdt.Schemata...)
	for _, line := range p.Schemata {
		if line == "" || strings.ContainsAny(line, "\n\x00") {
			return nil, fmt.Errorf("schemata %q: must be one line each", line)
		}
	}
	return p, nil
}

// Group is where a container's processes are, and what was made for it. It can
// be kept as JSON.
type Group struct {
	// Class and Monitor are directories; Monitor is "" without monitoring.
	Class   string `json:"class"`
	Monitor string `json:"monitor,omitempty"`
	// Made: Class goes with the container.
	Made bool `json:"made,omitempty"`
}

// Root is the directory resctrl is mounted on: the usual one, or any. It fails
// with the class ErrUnsupported when it is mounted nowhere.
func Root() (string, error) {
	const usual = "/sys/fs/resctrl"
	var st unix.Statfs_t
	if unix.Statfs(usual, &st) == nil && st.Type == unix.RDTGROUP_SUPER_MAGIC {
		return usual, nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// The filesystem's type follows the separator (proc_pid_mountinfo(5)).
		before, after, _ := strings.Cut(lines.Text(), " - ")
		if place := strings.Fields(before); strings.HasPrefix(after, "resctrl ") && len(place) > 4 {
			return place[4], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", errdefs.WithHint(fmt.Errorf("%w: needs resctrl", errdefs.ErrUnsupported),
		"with a processor and kernel that have it: mount -t resctrl resctrl /sys/fs/resctrl")
}

// Make makes what the plan needs below root, which is [Root]'s. On error
// nothing is left of it.
func (p *Plan) Make(root string) (*Group, error) {
	g := &Group{Class: filepath.Join(root, p.Class)}
	if err := p.makeClass(g); err != nil {
		return nil, errors.Join(explained(root, err), g.Remove())
	}
	if p.Monitor != "" {
		dir := filepath.Join(g.Class, "mon_groups", p.Monitor)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, errors.Join(explained(root, err), g.Remove())
		}
		g.Monitor = dir
	}
	return g, nil
}

func (p *Plan) makeClass(g *Group) error {
	err := fs.ErrExist
	if p.Own || len(p.Schemata) > 0 && p.Class != "" {
		err = os.Mkdir(g.Class, 0o755)
	}
	switch {
	case err == nil:
		g.Made = p.Own
		err = g.Write(p.Schemata)
		if err != nil {
			g.Made = true // nobody else knows of it yet
		}
		return err
	case !errors.Is(err, fs.ErrExist) || p.Own: // what is not the container's it must not take
		return err
	case len(p.Schemata) == 0:
		_, err := os.Stat(g.Class)
		return err
	}
	have, err := os.ReadFile(filepath.Join(g.Class, "schemata"))
	if err != nil {
		return err
	}
	return compare(p.Schemata, string(have))
}

// Write sets the class's shares.
func (g *Group) Write(schemata []string) error {
	if len(schemata) == 0 {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(g.Class, "schemata"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// At once: the kernel takes the lines in their order.
	_, err = f.WriteString(strings.Join(schemata, "\n") + "\n")
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// explained adds what the kernel says about its last refusal.
func explained(root string, err error) error {
	status, rerr := os.ReadFile(filepath.Join(root, "info", "last_cmd_status"))
	if why := strings.TrimSpace(string(status)); rerr == nil && why != "" && why != "ok" {
		return fmt.Errorf("%w (%s)", err, why)
	}
	return err
}

// Tasks are the files by which a process joins: it writes "0" to each, in
// order.
func (g *Group) Tasks() []string {
	tasks := []string{filepath.Join(g.Class, "tasks")}
	if g.Monitor != "" {
		tasks = append(tasks, filepath.Join(g.Monitor, "tasks"))
	}
	return tasks
}

// Remove removes what was made. Processes that are left go to the root's class.
func (g *Group) Remove() error {
	for _, d := range []struct {
		made bool
		dir  string
	}{{g.Monitor != "", g.Monitor}, {g.Made, g.Class}} {
		if d.made {
			if err := os.Remove(d.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
