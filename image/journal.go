package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// journal remembers which layers may not be on the disk yet; see the package
// comment for why.
type journal struct {
	path    string
	janitor *janitor

	mu  sync.Mutex
	now journalState
}

// journalState is what unsynced.json holds.
type journalState struct {
	// Boot is the kernel's identity for the boot the layers were written in,
	// /proc/sys/kernel/random/boot_id.
	Boot   string          `json:"boot"`
	Layers []digest.Digest `json:"layers"`
}

func newJournal(root string, j *janitor) *journal {
	return &journal{path: filepath.Join(root, "unsynced.json"), janitor: j}
}

// suspects returns the layers that were not known to be on the disk when the
// machine went down: none after a mere restart of the process.
func (j *journal) suspects() ([]digest.Digest, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var old journalState
	if len(b) > 0 {
		if err := json.Unmarshal(b, &old); err != nil {
			return nil, fmt.Errorf("read %s: %w", j.path, err)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.now = journalState{Boot: boot}
	if old.Boot == boot {
		j.now.Layers = old.Layers
		return nil, nil
	}
	return old.Layers, nil
}

// add lists layers before they become visible.
func (j *journal) add(layer digest.Digest) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if slices.Contains(j.now.Layers, layer) {
		return nil
	}
	next := journalState{Boot: j.now.Boot, Layers: append(slices.Clone(j.now.Layers), layer)}
	if err := j.write(next); err != nil {
		return err
	}
	j.now = next
	return nil
}

// settle writes everything to the disk in the background and strikes off what
// was listed by now.
func (j *journal) settle() {
	j.mu.Lock()
	listed := slices.Clone(j.now.Layers)
	j.mu.Unlock()
	j.janitor.do(func(context.Context) error {
		if err := syncFileSystem(filepath.Dir(j.path)); err != nil {
			return err
		}
		return j.strike(listed)
	})
}

// strike takes layers off the list.
func (j *journal) strike(layers []digest.Digest) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(j.now.Layers), func(d digest.Digest) bool { return slices.Contains(layers, d) })
	if len(rest) == len(j.now.Layers) && len(rest) > 0 {
		return nil
	}
	next := journalState{Boot: j.now.Boot, Layers: rest}
	if err := j.write(next); err != nil {
		return err
	}
	j.now = next
	return nil
}

func (j *journal) write(st journalState) error {
	if len(st.Layers) == 0 {
		if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return replaceFile(j.path, b)
}

func syncFileSystem(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: path, Err: err}
	}
	return nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
