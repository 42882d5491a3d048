package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// The formats of save; an engine writes the first two as a stream.
const (
	formatDocker = "docker-archive"
	formatOCI    = "oci-archive"
	formatOCIDir = "oci-dir"
)

func newLoad(a *app) *cobra.Command {
	var input, platform string
	var quiet bool
	cmd := verb("load [OPTIONS]", "Load images from an archive, an OCI layout directory or STDIN", 0, 0, func(cmd *cobra.Command, _ []string) error {
		return a.load(cmd.Context(), input, platform, quiet)
	})
	cmd.Flags().StringVarP(&input, "input", "i", "", "Read from a tar archive (plain or compressed) or an OCI layout directory, instead of STDIN")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	cmd.Flags().StringVar(&platform, "platform", "", `Load only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

func (a *app) load(ctx context.Context, input, platform string, quiet bool) error {
	archive, length, done, err := a.archiveInput(input)
	if err != nil {
		return err
	}
	defer done()
	c, err := a.client()
	if err != nil {
		return err
	}
	d := a.display(a.out)
	// An engine that shows no progress to anybody says less on the way.
	body, err := c.ImageLoad(ctx, archive, length, quiet || d.Size == nil, platform)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = d.Show(body)
	return err
}

// archiveInput opens what load reads, and tells its length, -1 when it is not
// known. done closes it.
func (a *app) archiveInput(input string) (_ io.Reader, length int64, done func() error, err error) {
	archive, done := a.in, func() error { return nil }
	if input == "" {
		if terminal.Is(a.in) {
			return nil, 0, nil, &hinted{error: errors.New("requested load from stdin, but stdin is a terminal"), hint: "use -i FILE or redirect"}
		}
	} else {
		f, err := os.Open(input)
		if err != nil {
			return nil, 0, nil, err
		}
		archive, done = f, f.Close
	}
	length = -1
	if info, err := archive.Stat(); err == nil && info.IsDir() {
		_ = done()
		r, err := readLayout(input)
		if err != nil {
			return nil, 0, nil, err
		}
		return r, length, r.Close, nil
	} else if err == nil && info.Mode().IsRegular() {
		if at, err := archive.Seek(0, io.SeekCurrent); err == nil {
			length = info.Size() - at
		}
	}
	return archive, length, done, nil
}

// readLayout is the tar stream of an OCI layout directory. The engine may run
// where it does not see the directory.
func readLayout(dir string) (io.ReadCloser, error) {
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return nil, &hinted{error: fmt.Errorf("%s is not an OCI layout: %w", dir, err), hint: "a directory with a root file system is for: tar -C DIR -c . | berth import -"}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() {
		defer root.Close()
		w.CloseWithError(writeLayout(root, w))
	}()
	return r, nil
}

func writeLayout(root *os.Root, w io.Writer) error {
	tw := tar.NewWriter(w)
	err := fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		return addFile(tw, root, path)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func addFile(tw *tar.Writer, root *os.Root, path string) error {
	f, err := root.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Name: path, Typeflag: tar.TypeReg, Size: info.Size(), Mode: 0o644}); err != nil {
		return err
	}
	_, err = io.CopyN(tw, f, info.Size())
	return err
}

func newSave(a *app) *cobra.Command {
	var output, platform, format string
	cmd := verb("save [OPTIONS] IMAGE [IMAGE...]", "Save one or more images to a tar archive (streamed to STDOUT by default)", 1, -1,
		func(cmd *cobra.Command, args []string) error {
			get := func(c *client.Client) (io.ReadCloser, error) {
				wire := format
				switch format {
				case formatDocker: // what every engine writes
					wire = ""
				case formatOCIDir:
					wire = formatOCI
				}
				return c.ImageSave(cmd.Context(), args, platform, wire)
			}
			switch format {
			case formatDocker, formatOCI:
				return a.writeArchive(output, get)
			case formatOCIDir:
				return a.saveLayout(output, get)
			}
			return fmt.Errorf("unknown format %q: want %s, %s or %s", format, formatDocker, formatOCI, formatOCIDir)
		})
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file (a new directory with --format oci-dir), instead of STDOUT")
	cmd.Flags().StringVar(&platform, "platform", "", `Save only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	cmd.Flags().StringVar(&format, "format", formatDocker, "Format to save: docker-archive, oci-archive or oci-dir")
	cmd.ValidArgsFunction = a.completeImages
	return cmd
}

// saveLayout writes an OCI layout into a directory that is not there yet. It
// gets its name when it is complete.
func (a *app) saveLayout(output string, get func(*client.Client) (io.ReadCloser, error)) (err error) {
	if output == "" {
		return &hinted{error: errors.New("a directory cannot be written to STDOUT"), hint: "name it by -o DIR"}
	}
	output = filepath.Clean(output)
	if _, err := os.Lstat(output); err == nil {
		return &hinted{error: fmt.Errorf("%s exists already", output), hint: "remove it, or name another directory"}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	body, err := get(c)
	if err != nil {
		return err
	}
	defer body.Close()
	tmp, err := os.MkdirTemp(filepath.Dir(output), ".berth-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	if err := extractLayout(tmp, body); err != nil {
		return err
	}
	return os.Rename(tmp, output)
}

// extractLayout writes the regular files of a tar, all an OCI layout has.
func extractLayout(dir string, r io.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for tr := tar.NewReader(r); ; {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if hdr.Typeflag != tar.TypeReg {
			continue
		}
		if err := extractFile(root, strings.TrimPrefix(hdr.Name, "./"), tr); err != nil {
			return err
		}
	}
}

func extractFile(root *os.Root, name string, r io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
