package oci

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// mayMap tells whether the process can be born into its user namespace with its
// mappings: who may set ids maps any, everybody maps their own one
// (user_namespaces(7)). For the rest there are newuidmap and newgidmap.
func (h *hostLimits) mayMap(l *specs.Linux) bool {
	return h.setgroups && h.setuid || ownID(l.UIDMappings, h.uid) && ownID(l.GIDMappings, h.gid)
}

func ownID(m []specs.LinuxIDMapping, id uint32) bool {
	return len(m) == 1 && m[0].Size == 1 && m[0].HostID == id
}

// mapIDs writes the mappings of the user namespace a process has made.
func (h *hostLimits) mapIDs(pid int, l *specs.Linux) error {
	if !h.setgroups && ownID(l.GIDMappings, h.gid) {
		// Who maps its own group only has to give up dropping groups.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/setgroups", pid), []byte("deny"), 0); err != nil {
			return fmt.Errorf("linux.gidMappings: %w", err)
		}
	}
	if err := writeMap(pid, "gid_map", "newgidmap", l.GIDMappings, h.setgroups || ownID(l.GIDMappings, h.gid)); err != nil {
		return fmt.Errorf("linux.gidMappings: %w", err)
	}
	if err := writeMap(pid, "uid_map", "newuidmap", l.UIDMappings, h.setuid || ownID(l.UIDMappings, h.uid)); err != nil {
		return fmt.Errorf("linux.uidMappings: %w", err)
	}
	return nil
}

// writeMap writes one mapping, or has the program of shadow-utils write it,
// which looks into /etc/subuid or /etc/subgid what the caller has.
func writeMap(pid int, file, program string, m []specs.LinuxIDMapping, direct bool) error {
	args := []string{program, fmt.Sprint(pid)}
	var lines strings.Builder
	for _, e := range m {
		fmt.Fprintf(&lines, "%d %d %d\n", e.ContainerID, e.HostID, e.Size)
		args = append(args, fmt.Sprint(e.ContainerID), fmt.Sprint(e.HostID), fmt.Sprint(e.Size))
	}
	if direct {
		return os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, file), []byte(lines.String()), 0)
	}
	return runMapper(args)
}

func runMapper(args []string) error {
	path, err := lookUp(args[0])
	if err != nil {
		return err
	}
	out, err := memoryFile("berth-map-output")
	if err != nil {
		return err
	}
	defer out.Close()
	null, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	defer null.Close()
	pr, err := os.StartProcess(path, args, &os.ProcAttr{Files: []*os.File{null, out, out}})
	if err != nil {
		return err
	}
	st, err := pr.Wait()
	if err == nil && !st.Success() {
		err = fmt.Errorf("%s: %s: %s", path, st, tail(out))
		err = errdefs.WithHint(errdefs.As(errdefs.ErrPermission, err), "the ranges in the configuration must be the user's in /etc/subuid and /etc/subgid")
	}
	return err
}

// lookUp finds a program in PATH.
func lookUp(name string) (string, error) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if filepath.IsAbs(dir) && unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", errdefs.WithHint(fmt.Errorf("more than the caller's own id: %w: needs %s", errdefs.ErrUnsupported, name),
		"install the package uidmap (shadow-utils), or map one id only")
}

// checkIDs makes sure that a user namespace that was joined has the mappings the
// specification says it has.
func checkIDs(pid int, l *specs.Linux) error {
	for _, f := range []struct {
		file, field string
		want        []specs.LinuxIDMapping
	}{{"uid_map", "linux.uidMappings", l.UIDMappings}, {"gid_map", "linux.gidMappings", l.GIDMappings}} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, f.file))
		if err != nil {
			return fmt.Errorf("%s: %w", f.field, err)
		}
		same, err := sameMap(b, f.want)
		if err != nil {
			return fmt.Errorf("%s: %w", f.field, err)
		}
		if !same {
			return invalid("%s: the user namespace that is joined has others: %q", f.field, strings.Join(strings.Fields(string(b)), " "))
		}
	}
	return nil
}

func sameMap(file []byte, want []specs.LinuxIDMapping) (bool, error) {
	lines := bytes.Split(bytes.TrimSpace(file), []byte("\n"))
	if len(lines) != len(want) {
		return false, nil
	}
	for i, line := range lines {
		var have specs.LinuxIDMapping
		if _, err := fmt.Sscan(string(line), &have.ContainerID, &have.HostID, &have.Size); err != nil {
			return false, errors.Join(errors.New("unexpected form"), err)
		}
		if have != want[i] {
			return false, nil
		}
	}
	return true, nil
}
