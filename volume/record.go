package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

const (
	recordFile = "volume.json"
	dataDir    = "_data"
)

// DriverLocal is the only driver.
const DriverLocal = "local"

// AnonymousLabel marks a volume nobody gave a name, as Docker marks them.
const AnonymousLabel = "com.docker.volume.anonymous"

// Volume describes one.
type Volume struct {
	Name    string
	Created time.Time
	// Labels are the user's, and [AnonymousLabel].
	Labels map[string]string `json:",omitempty"`
	// Options are the driver's: type, o, device and size; see [CreateOptions].
	Options map[string]string `json:",omitempty"`
	// Path is the directory containers see, on the host.
	Path string `json:"-"`
}

// Anonymous says that nobody gave it a name.
func (v *Volume) Anonymous() bool {
	_, ok := v.Labels[AnonymousLabel]
	return ok
}

// mounts says that the volume is a file system of its own, mounted while in use.
func (v *Volume) mounts() bool { return v.Options["device"] != "" || v.Options["type"] != "" }

// nameRule is what Docker allows as a volume's name. The length leaves room
// for the store's own names beside it.
var nameRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,239}$`)

// CheckName refuses what cannot be a volume's name.
func CheckName(name string) error {
	if len(name) == 1 {
		return invalidf("volume name is too short, names should be at least two alphanumeric characters")
	}
	if !nameRule.MatchString(name) {
		err := invalidf("%q includes invalid characters for a local volume name, only %q are allowed", name, "[a-zA-Z0-9][a-zA-Z0-9_.-]")
		return errdefs.WithHint(err, "if you intended to pass a host directory, use an absolute path")
	}
	return nil
}

// make makes the directory under a temporary name and renames it. What has a
// name is somebody's data: its record waits for the disk.
func (s *Store) make(v *Volume) (err error) {
	tmp, err := os.MkdirTemp(s.root, ".new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.releaseQuota(tmp), os.RemoveAll(tmp))
		}
	}()
	// Before anything is in it: what is made there is of its project from the start.
	if err := s.claimQuota(tmp, v.size()); err != nil {
		return err
	}
	data := filepath.Join(tmp, dataDir)
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(data, 0o755); err != nil { // whatever the umask
		return err
	}
	if err := writeRecord(filepath.Join(tmp, recordFile), v); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o711); err != nil { // users of containers pass through
		return err
	}
	fault.Here(fault.VolumeMade)
	if err := os.Rename(tmp, s.dir(v.Name)); err != nil {
		return err
	}
	if v.Anonymous() {
		return nil
	}
	return syncDir(s.root)
}

func writeRecord(path string, v *Volume) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil && !v.Anonymous() {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// load reads the record in dir. A directory without one is an anonymous volume
// made before there were records.
func load(dir string) (*Volume, error) {
	v := &Volume{Name: filepath.Base(dir), Path: filepath.Join(dir, dataDir)}
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		info, err := os.Stat(v.Path)
		if err != nil {
			return nil, err
		}
		v.Created, v.Labels = info.ModTime().UTC(), map[string]string{AnonymousLabel: ""}
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, recordFile), err)
	}
	v.Name = filepath.Base(dir)
	return v, nil
}

func invalidf(format string, args ...any) error {
	return errdefs.As(errdefs.ErrInvalid, fmt.Errorf(format, args...))
}

func errNotFound(name string) error {
	return errdefs.As(errdefs.ErrNotFound, fmt.Errorf("get %s: no such volume", name))
}
