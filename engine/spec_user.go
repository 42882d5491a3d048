package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxUserFile bounds what is read of a container's passwd and group files,
// which the container may have written.
const maxUserFile = 4 << 20

// processUser is a user as the kernel and the environment need it.
type processUser struct {
	specs.User
	home string
}

// resolveUser looks name ("", user, uid, user:group, ...) and the additional
// groups up in the passwd and group files of the container's root. Files that
// cannot be read, which the container may have made so, keep nobody out who is
// named by number.
func resolveUser(root *os.File, name string, groupAdd []string) (processUser, error) {
	u, err := resolveNamed(root, name, groupAdd)
	if err == nil || !numbered(name) {
		return u, err
	}
	none := func() io.ReadSeeker { return bytes.NewReader(nil) }
	if u, nerr := lookupUser(name, groupAdd, none(), none()); nerr == nil {
		return u, nil
	}
	return u, err
}

// numbered says that name needs no files: root, by default, or numbers.
func numbered(name string) bool { return strings.Trim(name, "0123456789:") == "" }

func resolveNamed(root *os.File, name string, groupAdd []string) (processUser, error) {
	passwd, err := readInRoot(root, "etc/passwd")
	if err != nil {
		return processUser{}, err
	}
	defer passwd.Close()
	group, err := readInRoot(root, "etc/group")
	if err != nil {
		return processUser{}, err
	}
	defer group.Close()
	return lookupUser(name, groupAdd, passwd, group)
}

// lookupUser does it on the two files' contents.
func lookupUser(name string, groupAdd []string, passwd, group io.ReadSeeker) (processUser, error) {
	found, err := user.GetExecUser(name, nil, passwd, group)
	if err != nil {
		return processUser{}, errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, err),
			"name a user of the image's /etc/passwd, or a number")
	}
	ids := append([]int{found.Gid}, found.Sgids...)
	if len(groupAdd) > 0 {
		if _, err := group.Seek(0, io.SeekStart); err != nil {
			return processUser{}, fmt.Errorf("read /etc/group: %w", err)
		}
		more, err := user.GetAdditionalGroups(groupAdd, group)
		if err != nil {
			return processUser{}, errdefs.As(errdefs.ErrInvalid, err)
		}
		slices.Sort(more) // they come in the order of a map
		ids = append(ids, more...)
	}
	u := processUser{home: found.Home, User: specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}}
	for _, id := range ids {
		u.AdditionalGids = append(u.AdditionalGids, uint32(id))
	}
	return u, nil
}

// userFile is a bounded passwd or group file.
type userFile struct {
	*io.SectionReader
	f *os.File
}

func (u *userFile) Close() error {
	if u.f == nil {
		return nil
	}
	return u.f.Close()
}

// readInRoot opens a regular file below root, following links only inside
// root. A missing one reads as empty.
func readInRoot(root *os.File, path string) (*userFile, error) {
	f, err := openInRoot(root, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return &userFile{SectionReader: io.NewSectionReader(nil, 0, 0)}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open /%s in the container: %w", path, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errdefs.As(errdefs.ErrInvalid, errors.New("not a regular file"))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open /%s in the container: %w", path, err)
	}
	return &userFile{SectionReader: io.NewSectionReader(f, 0, maxUserFile), f: f}, nil
}

// openInRoot resolves path as if root were /: no link and no .. leads out.
func openInRoot(root *os.File, path string, flags int) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(int(root.Fd()), path, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			// A rename raced with the resolution; openat2(2) says to try again.
		default:
			return nil, &os.PathError{Op: "openat2", Path: path, Err: err}
		}
	}
}
