package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/berth-containers/berth/audit"
	"github.com/berth-containers/berth/errdefs"
)

// dir is a volume's own directory, in which its record and its data are.
func (s *Store) dir(name string) string { return filepath.Join(s.root, name) }

// claimQuota limits a directory in which nothing has been made yet.
func (s *Store) claimQuota(dir string, size int64) error {
	switch {
	case size == 0:
		return nil
	case s.quota == nil:
		return fmt.Errorf("option size: %w", s.noQuota)
	}
	return s.quota.Claim(dir, size)
}

// ensureQuota sets the limit again before the volume is used: somebody may have
// taken it away, or the file system may be mounted in another way than it was.
func (s *Store) ensureQuota(e *entry) error {
	size := e.size()
	if size == 0 {
		return nil
	}
	err := s.noQuota
	if s.quota != nil {
		err = s.quota.Ensure(s.dir(e.Name), size)
	}
	if err != nil {
		return fmt.Errorf("limit it to %d bytes: %w", size, err)
	}
	return nil
}

// releaseQuota takes a directory's limit away, if it has one.
func (s *Store) releaseQuota(dir string) error {
	if s.quota == nil {
		return nil
	}
	return s.quota.Release(dir)
}

// Audit compares the limits of volumes with the kernel's. Nothing is changed.
func (s *Store) Audit() []audit.Finding {
	var found audit.Findings
	for _, v := range s.List() {
		size := v.size()
		if size == 0 {
			continue
		}
		object, problem := "volume "+v.Name, fmt.Sprintf("its files are not limited to %d bytes", size)
		if s.quota == nil {
			found.Add(object, fmt.Sprintf("%s: %v", problem, s.noQuota), errdefs.Hint(s.noQuota), nil)
			continue
		}
		u, err := s.quota.Status(s.dir(v.Name))
		if errors.Is(err, os.ErrNotExist) || err == nil && u.Project != 0 && u.Limit >= size && u.Limit < size+512 {
			continue
		}
		if err != nil {
			problem = fmt.Sprintf("%s: %v", problem, err)
		}
		found.Add(object, problem, "set the limit again", func(context.Context) (string, error) {
			e, err := s.find(v.Name)
			if err != nil {
				return "", err
			}
			defer e.mount.Unlock()
			return "set the limit again", s.ensureQuota(e)
		})
	}
	return found
}
