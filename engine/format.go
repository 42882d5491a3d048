package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/berth-containers/berth/errdefs"
)

// formatFile, in the state root, says in which format what is in there is kept.
const formatFile = "format.json"

// currentFormat is the format this engine reads and writes. It grows when an engine
// of before would misread what is written now, or needs a migration to be read here.
const currentFormat = 1

// stateFormat is what formatFile holds.
type stateFormat struct {
	Format int
	// Berth is the version of the engine that wrote it, for people.
	Berth string
}

// migration brings the state from one format to the next. It is done again when it
// was cut short, so each of its steps must be fine to repeat.
type migration struct {
	what string
	run  func(cfg *Config) error
}

// migrations lead from the format that is their index to the next one.
var migrations = []migration{
	{"remove what records cut short by a crash have left", removeCutShort},
}

// migrate makes the state readable for this engine, before anything of it is read. A
// state of a newer format is refused: it is left as it is.
func migrate(cfg *Config) error {
	path := filepath.Join(cfg.StateRoot, formatFile)
	found, err := readFormat(cfg.StateRoot)
	if err != nil {
		return err
	}
	if found.Format > currentFormat {
		err := errdefs.As(errdefs.ErrConflict, fmt.Errorf("state in %s has format %d, of Berth %s; this engine (%s) knows formats up to %d",
			cfg.StateRoot, found.Format, found.Berth, cfg.Version, currentFormat))
		return errdefs.WithHint(err, "use that version of Berth or a newer one, or give this one a state root of its own")
	}
	for n := found.Format; n < currentFormat; n++ {
		m := migrations[n]
		cfg.Logger.Info("migrate state", "from", n, "to", n+1, "what", m.what)
		if err := m.run(cfg); err != nil {
			return fmt.Errorf("migrate state in %s from format %d to %d: %s: %w", cfg.StateRoot, n, n+1, m.what, err)
		}
		if err := writeFormat(path, stateFormat{Format: n + 1, Berth: cfg.Version}); err != nil {
			return fmt.Errorf("migrate state: %w", err)
		}
	}
	return nil
}

// readFormat finds out the format. What has none is of before there were formats,
// which is 0, or is empty, which is as good.
func readFormat(root string) (stateFormat, error) {
	var f stateFormat
	path := filepath.Join(root, formatFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("read format of the state: %w", err)
	}
	if err := json.Unmarshal(bytes.TrimSpace(data), &f); err != nil || f.Format < 1 {
		return f, errdefs.WithHint(fmt.Errorf("read format of the state: %s: %q is not one", path, data),
			fmt.Sprintf("if this state was last used by this version of Berth, write {\"Format\":%d} into the file", currentFormat))
	}
	return f, nil
}

// writeFormat replaces the file and waits for the disk: it is the statement that all
// before it is done.
func writeFormat(path string, f stateFormat) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	tmp := path + newSuffix
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(append(data, '\n'))
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// removeCutShort removes the temporary files that engines before format 1 left in
// containers' directories when they were killed while they wrote.
func removeCutShort(cfg *Config) error {
	left, err := filepath.Glob(filepath.Join(cfg.StateRoot, "containers", "*", "*"+newSuffix))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
