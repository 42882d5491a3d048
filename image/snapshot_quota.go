package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/quota"
)

// openQuota finds out whether a container's files can be limited.
func (s *Store) openQuota() {
	s.quota, s.noQuota = quota.Open(filepath.Join(s.root, "containers"))
}

// QuotaProblem is nil when the size of a container's files can be limited. Else
// it says why not; it is then an errdefs.ErrUnsupported with a hint.
func (s *Store) QuotaProblem() error { return s.noQuota }

// claimQuota limits a directory in which nothing has been made yet.
func (s *Store) claimQuota(dir string, size int64) error {
	switch {
	case size == 0:
		return nil
	case s.quota == nil:
		return s.noQuota
	}
	return s.quota.Claim(dir, size)
}

// ensureQuota sets the limit again before the directory is used: somebody may
// have taken it away, or the file system may be mounted in another way than it was.
func (s *Store) ensureQuota(key string, size int64) error {
	if size == 0 {
		return nil
	}
	err := s.noQuota
	if s.quota != nil {
		err = s.quota.Ensure(s.containerDir(key), size)
	}
	if err != nil {
		return fmt.Errorf("limit snapshot %s to %d bytes: %w", key, size, err)
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

func (s *Store) containerDir(key string) string { return filepath.Join(s.root, "containers", key) }

// quotas compares the limits of containers' directories with the kernel's.
func (a *auditor) quotas() error {
	a.s.held.Lock()
	sizes := map[string]int64{}
	for key, rec := range a.s.containers {
		if rec.Size > 0 {
			sizes[key] = rec.Size
		}
	}
	a.s.held.Unlock()
	for key, size := range sizes {
		a.quota(key, size)
	}
	if a.s.quota == nil {
		return nil
	}
	strays, err := a.s.quota.Strays()
	for _, id := range strays {
		a.found.Add(fmt.Sprintf("quota of project %d", id), "it limits files on the file system of "+a.s.root+", and there are none that belong to it", "remove it",
			func(context.Context) (string, error) { return "removed it", a.s.quota.Forget(id) })
	}
	return err
}

// quota looks whether a directory has its limit.
func (a *auditor) quota(key string, size int64) {
	object, problem := "directory "+a.s.containerDir(key), fmt.Sprintf("its files are not limited to %d bytes", size)
	if a.s.quota == nil {
		a.found.Add(object, fmt.Sprintf("%s: %v", problem, a.s.noQuota), errdefs.Hint(a.s.noQuota), nil)
		return
	}
	u, err := a.s.quota.Status(a.s.containerDir(key))
	if errors.Is(err, os.ErrNotExist) || err == nil && u.Project != 0 && u.Limit >= size && u.Limit < size+512 {
		return
	}
	if err != nil {
		problem = fmt.Sprintf("%s: %v", problem, err)
	}
	a.found.Add(object, problem, "set the limit again", func(context.Context) (string, error) {
		return "set the limit again", a.s.ensureQuota(key, size)
	})
}

// DType says whether the file system tells in a directory's entries what they
// are, which overlayfs needs to show what is deleted as deleted (getdents64(2)).
func (s *Store) DType() bool {
	dir, err := os.Open(s.root)
	if err != nil {
		return false
	}
	defer dir.Close()
	b := make([]byte, 4096)
	n, err := unix.Getdents(int(dir.Fd()), b)
	// d_type is behind inode, offset and length; the store has directories, and
	// every directory has "." in it.
	return err == nil && n > 18 && b[18] == unix.DT_DIR
}
