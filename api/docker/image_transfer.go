package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var errNoName = errors.New("no image name given")

// imageNameHint says how images are named.
const imageNameHint = "a name looks like [REGISTRY[:PORT]/]PATH[:TAG][@DIGEST], in lower case"

// imageCreate answers POST /images/create: a pull (fromImage) or an import
// (fromSrc).
func (s *Server) imageCreate(w *response, r *request) error {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.value("fromImage") != "":
		return s.imagePull(w, r)
	case r.value("fromSrc") != "":
		return s.imageImport(w, r)
	}
	return errdefs.As(errdefs.ErrInvalid, errNoName)
}

// imagePull pulls one image, or without a tag all of a repository, and reports
// the progress; the lines' words are the engine's.
func (s *Server) imagePull(w *response, r *request) error {
	named, err := reference.ParseNormalizedNamed(strings.TrimSuffix(r.reference("fromImage"), ":"))
	if err != nil {
		return errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, err), imageNameHint)
	}
	opt := engine.ImagePullOptions{AllTags: reference.IsNameOnly(named)}
	if opt.Platform, err = r.platform(); err != nil {
		return err
	}
	if opt.Auth, err = r.registryAuth(); err != nil {
		return err
	}
	out := newProgress(w)
	opt.Progress = out.event
	_, err = s.engine.ImagePull(r.Context(), named.String(), opt)
	return out.close(err)
}

// imageImport makes an image of the root file system in the body, or at a URL.
func (s *Server) imageImport(w *response, r *request) error {
	platform, err := r.platform()
	if err != nil {
		return err
	}
	source := r.value("fromSrc")
	if source == "-" {
		source = ""
	}
	id, err := s.engine.ImageImport(r.Context(), r.Body, engine.ImageImportOptions{
		Source:   source,
		Ref:      r.reference("repo"),
		Message:  r.value("message"),
		Changes:  r.URL.Query()["changes"],
		Platform: platform,
	})
	if err != nil {
		return err
	}
	out := newProgress(w)
	out.send(jsonstream.Message{Status: id})
	return out.close(nil)
}

// imageLoad answers POST /images/load. Progress goes out while the body still
// comes in; quiet leaves only the names of what was loaded.
func (s *Server) imageLoad(w *response, r *request) error {
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		return fmt.Errorf("read and write at once: %w", err)
	}
	return s.loadImages(r.Context(), w, r, r.Body)
}

func (s *Server) loadImages(ctx context.Context, w *response, r *request, archive io.Reader) error {
	platform, err := r.onePlatform("loading")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	out := newProgress(w)
	quiet := r.boolean("quiet")
	_, err = s.engine.ImageLoad(ctx, archive, engine.ImageLoadOptions{Platform: platform, Progress: func(e engine.ProgressEvent) {
		if !quiet || e.Stream != "" {
			out.event(e)
		}
	}})
	return out.close(err)
}

// imageSave answers GET /images/get with a tar of the images in names.
func (s *Server) imageSave(w *response, r *request) error {
	names := r.URL.Query()["names"]
	if len(names) == 0 {
		return errdefs.As(errdefs.ErrInvalid, errNoName)
	}
	return s.saveImages(w, r, names)
}

// saveImages writes the tar. The parameter format is Berth's: docker-archive,
// the default, or oci-archive.
func (s *Server) saveImages(w *response, r *request, names []string) error {
	platform, err := r.onePlatform("saving")
	if err != nil {
		return err
	}
	opt := engine.ImageSaveOptions{Names: names, Format: r.value("format"), Platform: platform}
	return s.engine.ImageSave(r.Context(), opt, tarWriter{w})
}

// onePlatform reads a platform of which clients may name several. An image here
// is for one platform.
func (r *request) onePlatform(act string) (*ocispec.Platform, error) {
	if len(r.URL.Query()["platform"]) > 1 {
		return nil, errdefs.WithHint(notSupported(act+" several platforms of an image at once"), "name one platform")
	}
	return r.platform()
}

// tarWriter announces a tar with the first byte.
type tarWriter struct{ w *response }

// Write passes p on.
func (t tarWriter) Write(p []byte) (int, error) {
	if !t.w.started {
		t.w.Header().Set("Content-Type", "application/x-tar")
	}
	return t.w.Write(p)
}
