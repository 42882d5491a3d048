package network

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// recordName is the record's name in the state directory.
const recordName = "network.json"

// record is what network.json holds: what must be the same after a reboot.
type record struct {
	Bridge, Host, None identity
	// Subnet is the bridge's.
	Subnet netip.Prefix
}

// identity names a network.
type identity struct {
	ID, Name string
	Created  time.Time
}

func (i identity) describe(driver string) Network {
	return Network{ID: i.ID, Name: i.Name, Driver: driver, Created: i.Created}
}

func newIdentity(name string) identity {
	return identity{ID: randomID(), Name: name, Created: time.Now().UTC()}
}

// randomID returns 64 hexadecimal digits, the form of Docker's IDs.
func randomID() string {
	var b [32]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// loadRecord reads network.json, or makes it with a subnet of the host's free ones.
func (s *Store) loadRecord() error {
	path := filepath.Join(s.opts.StateDir, recordName)
	r := &record{}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		*r = record{Bridge: newIdentity(Bridge), Host: newIdentity(Host), None: newIdentity(None)}
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(data, r); err != nil {
			return errdefs.WithHint(fmt.Errorf("read %s: %w", path, err),
				"remove the file: networks get new identities, containers keep theirs")
		}
	}
	subnet, err := s.chooseSubnet(r.Subnet)
	if err != nil {
		return err
	}
	s.record = r
	if r.Subnet == subnet {
		return nil
	}
	r.Subnet = subnet
	return writeJSON(path, r, true)
}

// writeJSON replaces the file as a whole: readers and a crash see the old or
// the new content. durable waits for the disk, which only a file that must
// survive a power cut needs.
func writeJSON(path string, v any, durable bool) error {
	data, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil && durable {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	fault.Here(fault.LeaseWritten)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	fault.Here(fault.LeaseRenamed)
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if !durable {
		return nil
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// findNetwork resolves a name, an ID or the unambiguous start of one.
func findNetwork(all []Network, ref string) (Network, error) {
	var found []Network
	for _, n := range all {
		if n.Name == ref || n.ID == ref {
			return n, nil
		}
		if strings.HasPrefix(n.ID, ref) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Network{}, errdefs.As(errdefs.ErrNotFound, fmt.Errorf("network %s not found", ref))
	}
	return Network{}, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("network %s is ambiguous", ref))
}
