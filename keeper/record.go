package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/oci"
)

// records is the directory of what the keeper must know after its own death.
type records struct{ dir string }

func (r records) container(id string) string { return filepath.Join(r.dir, id) }
func (r records) spec(id string) string      { return filepath.Join(r.dir, id, "spec.json") }
func (r records) bundle(id string) string    { return filepath.Join(r.dir, id, "bundle") }

// exit is where a process's Status is put when it has exited.
func (r records) exit(k key) string {
	if k.exec == "" {
		return filepath.Join(r.dir, k.container, "exit.json")
	}
	return filepath.Join(r.dir, k.container, "exec", k.exec+".json")
}

// create makes a container's directory with its spec and, where there will be
// hooks to run at its end, the path of its bundle.
func (r records) create(start *StartRequest) error {
	id := start.ID
	// What is there already belongs to nobody: it could not be removed when its
	// container was forgotten.
	err := r.remove(key{container: id})
	if err == nil {
		err = os.Mkdir(r.container(id), 0o700)
	}
	if err != nil {
		return fmt.Errorf("create record: %w", err)
	}
	fault.Here(fault.KeeperDir)
	if hasPoststop(start.Spec) {
		err = os.WriteFile(r.bundle(id), []byte(start.Bundle), 0o600)
	}
	switch {
	case err != nil:
	case start.raw != nil:
		err = replaceFile(r.spec(id), start.raw)
	default:
		err = writeJSON(r.spec(id), start.Spec)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write spec: %w", err), r.remove(key{container: id}))
	}
	return nil
}

// LoadSpec reads the spec of a container that the keeper with that root has
// started and not yet forgotten; the error is fs.ErrNotExist when there is none.
func LoadSpec(root, id string) (*specs.Spec, error) {
	return records{place{root}.containers()}.loadSpec(id)
}

// loadSpec reads a container's spec back; it is not kept in memory.
func (r records) loadSpec(id string) (*specs.Spec, error) {
	data, err := os.ReadFile(r.spec(id))
	if err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	spec, err := oci.ParseSpec(data)
	if err != nil {
		return nil, fmt.Errorf("read spec of container %s: %w", id, err)
	}
	return spec, nil
}

// saveExit writes a process's last status.
func (r records) saveExit(s *Status) error {
	path := r.exit(key{s.ContainerID, s.ExecID})
	if s.ExecID != "" {
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("write exit record: %w", err)
		}
	}
	if err := writeJSON(path, s); err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	return nil
}

// remove deletes a process's record, a container's with those of its execs.
// What is not there counts as deleted.
func (r records) remove(k key) error {
	if k.exec != "" {
		return ignoreNotExist(os.Remove(r.exit(k)))
	}
	return os.RemoveAll(r.container(k.container))
}

// containers lists the ids that have a record.
func (r records) containers() ([]string, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && validID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// exits reads the exit records of a container: of its execs, and last its own,
// which is missing when it has not exited.
func (r records) exits(id string) (execs []Status, own *Status, err error) {
	entries, err := os.ReadDir(filepath.Join(r.container(id), "exec"))
	if ignoreNotExist(err) != nil {
		return nil, nil, fmt.Errorf("read exit records: %w", err)
	}
	for _, e := range entries {
		name, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord || !validID(name) {
			continue
		}
		s, err := readStatus(r.exit(key{id, name}))
		if err != nil {
			return nil, nil, err
		}
		execs = append(execs, *s)
	}
	own, err = readStatus(r.exit(key{container: id}))
	return execs, own, ignoreNotExist(err)
}

func readStatus(path string) (*Status, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read exit record: %w", err)
	}
	s := new(Status)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read exit record %s: %w", path, err)
	}
	return s, nil
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replaceFile(path, data)
}

// replaceFile replaces a file in one step. The files are made for a later keeper
// on a running system; they need not survive the loss of power, so nothing is
// synced.
func replaceFile(path string, data []byte) error {
	// A name that validID refuses.
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	err := os.WriteFile(temporary, data, 0o600)
	fault.Here(fault.KeeperWritten)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	fault.Here(fault.KeeperRenamed)
	if err != nil {
		return errors.Join(err, ignoreNotExist(os.Remove(temporary)))
	}
	return nil
}
