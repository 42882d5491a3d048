package main

import (
	"archive/tar"
	"bytes"
	"context"
	_ "crypto/sha256" // go-digest finds it there
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The image that is pulled: three layers of Debian and Python, and another one
// whose top layer is a small change.
const (
	pulledTag  = "1"
	changedTag = "2"
)

// makePulled makes the image as an OCI layout in a directory.
func makePulled(ctx context.Context, dir string) error {
	progress("making an image of Debian and Python")
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	script := exec.CommandContext(ctx, "demo/make-python.sh", dir)
	script.Stdout, script.Stderr = os.Stderr, os.Stderr
	if err := script.Run(); err != nil {
		return fmt.Errorf("make Debian with Python: %w", err)
	}
	layout := &layout{dir: dir}
	below := map[string]entryKey{}
	for _, name := range []string{"base", "python", "app"} {
		archive := filepath.Join(dir, name+".tar")
		l, all, err := layout.layer(archive, below)
		if err != nil {
			return fmt.Errorf("make layer %s: %w", name, err)
		}
		layout.layers, below = append(layout.layers, l), all
		if err := os.Remove(archive); err != nil {
			return err
		}
	}
	if err := layout.image(pulledTag); err != nil {
		return err
	}
	change, err := layout.write(func(w *tar.Writer) error {
		text := []byte("changed\n")
		err := w.WriteHeader(&tar.Header{Name: "etc/motd", Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(1, 0)})
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	})
	if err != nil {
		return err
	}
	layout.layers[2] = change
	if err := layout.image(changedTag); err != nil {
		return err
	}
	return layout.finish()
}

// layout is an OCI image layout being written.
type layout struct {
	dir    string
	layers []layer
	index  ocispec.Index
}

type layer struct {
	blob   ocispec.Descriptor
	diffID digest.Digest
}

// entryKey tells whether an entry of a tar changed.
type entryKey struct {
	kind     byte
	size     int64
	modified time.Time
	mode     int64
	uid, gid int
	link     string
}

// layer writes what an archive has and below has not, with the directories it is
// in, and returns all the archive has.
func (l *layout) layer(archive string, below map[string]entryKey) (layer, map[string]entryKey, error) {
	all, wanted := map[string]entryKey{}, map[string]bool{}
	err := eachEntry(archive, func(hdr *tar.Header, _ io.Reader) error {
		key := entryKey{hdr.Typeflag, hdr.Size, hdr.ModTime, hdr.Mode, hdr.Uid, hdr.Gid, hdr.Linkname}
		name := path.Clean(hdr.Name)
		all[name] = key
		if old, ok := below[name]; !ok || old != key {
			for ; name != "."; name = path.Dir(name) {
				wanted[name] = true
			}
		}
		return nil
	})
	if err != nil {
		return layer{}, nil, err
	}
	made, err := l.write(func(w *tar.Writer) error {
		return eachEntry(archive, func(hdr *tar.Header, r io.Reader) error {
			if !wanted[path.Clean(hdr.Name)] {
				return nil
			}
			if err := w.WriteHeader(hdr); err != nil {
				return err
			}
			_, err := io.Copy(w, r)
			return err
		})
	})
	return made, all, err
}

func eachEntry(archive string, f func(*tar.Header, io.Reader) error) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	for r := tar.NewReader(file); ; {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = f(hdr, r)
		}
		if err != nil {
			return err
		}
	}
}

// write makes a gzipped layer of what f writes.
func (l *layout) write(f func(*tar.Writer) error) (made layer, err error) {
	file, err := os.CreateTemp(l.dir, "layer-*")
	if err != nil {
		return made, err
	}
	defer file.Close()
	packed, plain := digest.Canonical.Digester(), digest.Canonical.Digester()
	z := gzip.NewWriter(io.MultiWriter(file, packed.Hash()))
	w := tar.NewWriter(io.MultiWriter(z, plain.Hash()))
	if err := errors.Join(f(w), w.Close(), z.Close()); err != nil {
		return made, err
	}
	info, err := file.Stat()
	if err != nil {
		return made, err
	}
	made = layer{
		ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: packed.Digest(), Size: info.Size()}, plain.Digest(),
	}
	return made, os.Rename(file.Name(), l.blob(made.blob.Digest))
}

func (l *layout) blob(d digest.Digest) string {
	return filepath.Join(l.dir, "blobs", "sha256", d.Encoded())
}

// image adds an image of the layers to the index, under a tag.
func (l *layout) image(tag string) error {
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   ocispec.ImageConfig{Cmd: []string{"python3"}}, RootFS: ocispec.RootFS{Type: "layers"},
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, layer := range l.layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.diffID)
		m.Layers = append(m.Layers, layer.blob)
	}
	var err error
	if m.Config, err = l.json(ocispec.MediaTypeImageConfig, config); err != nil {
		return err
	}
	desc, err := l.json(ocispec.MediaTypeImageManifest, m)
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	l.index.Manifests = append(l.index.Manifests, desc)
	return err
}

func (l *layout) json(mediaType string, v any) (ocispec.Descriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return desc, os.WriteFile(l.blob(desc.Digest), text, 0o644)
}

func (l *layout) finish() error {
	l.index.SchemaVersion = 2
	text, err := json.Marshal(l.index)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(l.dir, ocispec.ImageIndexFile), text, 0o644),
		os.WriteFile(filepath.Join(l.dir, ocispec.ImageLayoutFile), bytes.TrimSpace([]byte(`{"imageLayoutVersion":"1.0.0"}`)), 0o644))
}
