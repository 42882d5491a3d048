package seccomp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// Cache keeps compiled filters as files, for processes that live too short to keep
// them in memory. A file is named by [Digest] and protected against truncation
// and bit rot by a checksum; against other users the directory's mode protects.
// It may be used from several goroutines and processes at once.
//
// Mind what it saves: a profile like Docker's is compiled in some 25 µs and read
// back in 20, most of that for the digest and the system calls. Files pay for
// profiles with hundreds of argument conditions.
type Cache struct {
	dir  *os.File
	path string
}

// maxCacheFile bounds what is read: the largest program, and room for the names.
const maxCacheFile = unix.BPF_MAXINSNS*insnSize + 64<<10

// cacheMagic starts a file; the checksum of the rest follows.
const cacheMagic = "berthBPF"

// OpenCache opens the directory, making it with mode 0700 if it is missing. It
// refuses one that others may write to or that belongs to somebody else
// ([errdefs.ErrPermission]): a filter from there could allow anything. Close it
// after use.
func OpenCache(dir string) (*Cache, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return nil, fmt.Errorf("make seccomp cache: %w", err)
	}
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open seccomp cache: %w", err)
	}
	if err := ownPrivate(d); err != nil {
		d.Close()
		return nil, fmt.Errorf("open seccomp cache %s: %w", dir, err)
	}
	return &Cache{dir: d, path: dir}, nil
}

// Close releases the directory. The files stay.
func (c *Cache) Close() error { return c.dir.Close() }

// Filter returns the compiled form of a profile, as [Compile] does, from its file if
// there is a sound one. It compiles otherwise and tries to leave a file for the next
// time; a directory that cannot be written to costs only that next time.
func (c *Cache) Filter(p *specs.LinuxSeccomp) (*Filter, error) {
	if p == nil {
		return nil, nil
	}
	key := Digest(p)
	if f, err := c.load(key); err == nil {
		return f, nil
	}
	f, err := Compile(p)
	if err != nil {
		return nil, err
	}
	_ = c.store(key, f) // costs the next process time, as documented
	return f, nil
}

func (c *Cache) load(key string) (*Filter, error) {
	fd, err := unix.Openat(int(c.dir.Fd()), key, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open cached filter %s: %w", key, err)
	}
	file := os.NewFile(uintptr(fd), key)
	defer file.Close()
	if err := ownPrivate(file); err != nil {
		return nil, fmt.Errorf("open cached filter %s: %w", key, err)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxCacheFile))
	if err != nil {
		return nil, fmt.Errorf("read cached filter %s: %w", key, err)
	}
	f, err := decode(key, data)
	if err != nil {
		return nil, fmt.Errorf("read cached filter %s: %w", key, err)
	}
	return f, nil
}

// store writes the file under another name first. One left over by a killed
// process harms nobody.
func (c *Cache) store(key string, f *Filter) error {
	file, err := os.CreateTemp(c.path, "new-*")
	if err != nil {
		return fmt.Errorf("write cached filter: %w", err)
	}
	_, err = file.Write(encode(key, f))
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), filepath.Join(c.path, key))
	}
	if err != nil {
		os.Remove(file.Name())
		return fmt.Errorf("write cached filter %s: %w", key, err)
	}
	return nil
}

// ownPrivate checks that f belongs to this process's user and to nobody else.
func ownPrivate(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return errdefs.As(errdefs.ErrPermission,
			fmt.Errorf("owner %d, mode %#o: needs owner %d and no access for others", st.Uid, st.Mode&0o7777, os.Geteuid()))
	}
	return nil
}

// encode lays out: magic, SHA-256 of the rest, key, flags, notify, unknown names,
// instructions. Numbers are little-endian, the instructions as in memory.
func encode(key string, f *Filter) []byte {
	b := make([]byte, 0, 512+len(f.Insns)*insnSize)
	b = append(b, cacheMagic...)
	b = append(b, make([]byte, sha256.Size)...)
	b = appendString(b, key)
	b = appendLength(b, int(f.Flags))
	notify := byte(0)
	if f.Notify {
		notify = 1
	}
	b = append(b, notify)
	b = appendLength(b, len(f.Unknown))
	for _, name := range f.Unknown {
		b = appendString(b, name)
	}
	b = append(b, f.Bytes()...)
	sum := sha256.Sum256(b[len(cacheMagic)+sha256.Size:])
	copy(b[len(cacheMagic):], sum[:])
	return b
}

// decode is the inverse of encode. What passes the checksum was written by encode
// of some version, which the key tells.
func decode(key string, data []byte) (*Filter, error) {
	body, ok := bytes.CutPrefix(data, []byte(cacheMagic))
	if !ok || len(body) < sha256.Size {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("not a cached filter"))
	}
	sum := sha256.Sum256(body[sha256.Size:])
	r := reader{rest: body[sha256.Size:], ok: bytes.Equal(sum[:], body[:sha256.Size])}
	r.ok = r.ok && string(r.next(r.length())) == key
	f := &Filter{Flags: r.length()}
	if notify := r.next(1); r.ok {
		f.Notify = notify[0] == 1
	}
	for n := r.length(); n > 0 && r.ok; n-- {
		f.Unknown = append(f.Unknown, string(r.next(r.length())))
	}
	if !r.ok || len(r.rest) == 0 || len(r.rest)%insnSize != 0 {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("contents are damaged"))
	}
	f.Insns = make([]unix.SockFilter, len(r.rest)/insnSize)
	for i := range f.Insns {
		b := r.rest[i*insnSize:]
		f.Insns[i] = unix.SockFilter{Code: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:])}
	}
	return f, nil
}

// reader takes pieces off the front; ok turns false when there is not enough.
type reader struct {
	rest []byte
	ok   bool
}

func (r *reader) next(n uint32) []byte {
	if !r.ok || uint64(n) > uint64(len(r.rest)) {
		r.ok = false
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) length() uint32 {
	if b := r.next(4); r.ok {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}
