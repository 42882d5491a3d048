// Package localcopy is the user's half of berth cp: which name a copy gets, by
// the rules of the docker command, and files packed into an archive and unpacked
// from one.
package localcopy

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Info describes one end of a copy.
type Info struct {
	// Path may end in a slash, or a slash and a dot: both say that it is a
	// directory, the latter that what is in it is meant.
	Path   string
	Exists bool
	IsDir  bool
	// Rebase is the name of the copy, where it is not that of the path's end.
	Rebase string
}

// Absolute makes a path absolute and keeps what it ends in.
func Absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil || abs == "/" {
		return abs, err
	}
	return abs + ending(path), nil
}

// ending is "/.", "/" or "".
func ending(path string) string {
	switch {
	case filepath.Base(path) == "." && !strings.HasSuffix(path, "/"):
		return "/."
	case strings.HasSuffix(path, "/"):
		return "/"
	}
	return ""
}

// Split takes a path apart; the name is "." where the content of a directory is
// meant.
func Split(path string) (dir, name string) {
	clean := filepath.Clean(path)
	if ending(path) == "/." && filepath.Base(clean) != "." {
		return clean, "."
	}
	return filepath.Dir(clean), filepath.Base(clean)
}

// Follow is where a link leads, with what the link's path ends in, and the name
// the copy keeps.
func Follow(link, end string) (path, rebase string) {
	path = end
	if path != "/" {
		path += ending(link)
	}
	if filepath.Base(link) != filepath.Base(path) {
		rebase = filepath.Base(link)
	}
	return path, rebase
}

// Beside is a link's target, seen from the link's directory.
func Beside(link, target string) string {
	if filepath.IsAbs(target) {
		return target
	}
	dir, _ := Split(link)
	return filepath.Join(dir, target)
}

// Source describes what is copied from here. Links in front of its name are
// followed, and with follow the name itself.
func Source(path string, follow bool) (Info, error) {
	rebase := ""
	if follow {
		end, err := filepath.EvalSymlinks(path)
		if err != nil {
			return Info{}, err
		}
		path, rebase = Follow(path, end)
	}
	st, err := os.Lstat(path)
	if err != nil {
		return Info{}, err
	}
	return Info{Path: path, Exists: true, IsDir: st.IsDir(), Rebase: rebase}, nil
}

// maxLinks is how many links in a row a destination may be.
const maxLinks = 40

// Destination describes where something is copied to. A link there is followed;
// what is not there may be made if its directory is.
func Destination(path string) (Info, error) {
	for range maxLinks {
		st, err := os.Lstat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			dir, _ := Split(path)
			parent, err := os.Stat(dir)
			if err == nil && !parent.IsDir() {
				err = fmt.Errorf("%s is not a directory", dir)
			}
			return Info{Path: path}, err
		case err != nil:
			return Info{}, err
		case st.Mode()&os.ModeSymlink == 0:
			return Info{Path: path, Exists: true, IsDir: st.IsDir()}, nil
		}
		target, err := os.Readlink(path)
		if err != nil {
			return Info{}, err
		}
		path = Beside(path, target)
	}
	return Info{}, fmt.Errorf("too many links in %s", path)
}

// Place decides where an archive of src is unpacked so that dst is what it
// becomes: the directory, and what rename does to the archive's names (nil:
// nothing).
func Place(src, dst Info) (dir string, rename func(string) string, err error) {
	dir, name := Split(dst.Path)
	_, from := Split(src.Path)
	if src.Rebase != "" {
		from = src.Rebase
	}
	switch {
	case dst.Exists && dst.IsDir:
		return dst.Path, nil, nil
	case dst.Exists && src.IsDir:
		return "", nil, errors.New("cannot copy directory")
	case !dst.Exists && !src.IsDir && ending(dst.Path) != "":
		return "", nil, errors.New("no such directory")
	}
	return dir, Rename(from, name), nil
}

// Rename replaces from, the first part of an archive's names, by to.
func Rename(from, to string) func(string) string {
	from, to = strings.TrimRight(from, "/"), strings.TrimRight(to, "/")
	return func(name string) string {
		if from == "" { // an archive of /
			return strings.TrimPrefix(to+"/"+strings.TrimLeft(name, "/"), "/")
		}
		rest, ok := strings.CutPrefix(name, from)
		if !ok || rest != "" && rest[0] != '/' {
			return name
		}
		return to + rest
	}
}

// Renamed is an archive with other names. The caller closes it.
func Renamed(archive io.Reader, rename func(string) string) io.ReadCloser {
	if rename == nil {
		return io.NopCloser(archive)
	}
	return pipe(func(w *tar.Writer) error {
		for r := tar.NewReader(archive); ; {
			hdr, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			hdr.Format = tar.FormatPAX // the new name may be longer than others take
			hdr.Name = rename(hdr.Name)
			if hdr.Typeflag == tar.TypeLink {
				hdr.Linkname = rename(hdr.Linkname)
			}
			if err := w.WriteHeader(hdr); err != nil {
				return err
			}
			if _, err := io.Copy(w, r); err != nil {
				return err
			}
		}
	})
}

// pipe is what write writes, as it is read. Closed early, write ends with an
// error.
func pipe(write func(*tar.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := tar.NewWriter(w)
		err := write(t)
		if err == nil {
			err = t.Close()
		}
		w.CloseWithError(err)
	}()
	return &piped{PipeReader: r, done: done}
}

// piped waits for its writer when it is closed.
type piped struct {
	*io.PipeReader
	done chan struct{}
}

func (p *piped) Close() error {
	err := p.PipeReader.Close()
	<-p.done
	return err
}
