package docker

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
)

var errNoName = errors.New("no image name given")

// imageCreate answers POST /images/create: a pull (fromImage) or an import
// (fromSrc).
func (s *Server) imageCreate(w *response, r *request) error {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.value("fromImage") != "":
		return s.imagePull(w, r)
	case r.value("fromSrc") == "-":
		return s.imageImport(w, r)
	case r.value("fromSrc") != "":
		return errdefs.WithHint(notSupported("importing from a URL"), "download the file and import it from standard input")
	}
	return errdefs.As(errdefs.ErrInvalid, errNoName)
}

// imagePull pulls one image and reports the progress.
func (s *Server) imagePull(w *response, r *request) error {
	named, err := reference.ParseNormalizedNamed(r.reference("fromImage"))
	if err != nil {
		return invalid("invalid reference format: %w", err)
	}
	named = reference.TagNameOnly(named)
	opt := engine.ImagePullOptions{}
	if opt.Platform, err = r.platform(); err != nil {
		return err
	}
	if opt.Auth, err = r.registryAuth(); err != nil {
		return err
	}
	had, _ := s.engine.ImageInspect(r.Context(), named.String()) // nil when it is new
	out := newProgress(w)
	begun := false
	opt.Progress = func(e engine.ProgressEvent) {
		if !begun {
			begun = true
			out.send(jsonstream.Message{ID: pulledVersion(named), Status: "Pulling from " + reference.Path(named)})
		}
		out.event(e)
	}
	pulled, err := s.engine.ImagePull(r.Context(), named.String(), opt)
	if err == nil {
		for _, line := range pullSummary(named, had, pulled) {
			out.send(jsonstream.Message{Status: line})
		}
	}
	return out.close(err)
}

// pulledVersion is the tag or digest a pull asks for.
func pulledVersion(named reference.Named) string {
	switch n := named.(type) {
	case reference.Digested:
		return n.Digest().String()
	case reference.Tagged:
		return n.Tag()
	}
	return ""
}

// pullSummary is the last two lines of a pull.
func pullSummary(named reference.Named, had, pulled *image.InspectResponse) []string {
	var lines []string
	for _, known := range pulled.RepoDigests {
		if name, digest, ok := strings.Cut(known, "@"); ok && sameRepository(name, named) {
			lines = append(lines, "Digest: "+digest)
			break
		}
	}
	if had != nil && had.ID == pulled.ID {
		return append(lines, "Status: Image is up to date for "+reference.FamiliarString(named))
	}
	return append(lines, "Status: Downloaded newer image for "+reference.FamiliarString(named))
}

// sameRepository says whether name, in whatever short form, is named's.
func sameRepository(name string, named reference.Named) bool {
	other, err := reference.ParseNormalizedNamed(name)
	return err == nil && other.Name() == named.Name()
}

// imageImport makes an image of the root file system in the body.
func (s *Server) imageImport(w *response, r *request) error {
	platform, err := r.platform()
	if err != nil {
		return err
	}
	id, err := s.engine.ImageImport(r.Context(), r.Body, engine.ImageImportOptions{
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
// comes in.
func (s *Server) imageLoad(w *response, r *request) error {
	if len(r.URL.Query()["platform"]) > 0 {
		return notSupported("loading some platforms of an image only")
	}
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		return fmt.Errorf("read and write at once: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	out := newProgress(w)
	report := out.event
	if r.boolean("quiet") {
		report = func(engine.ProgressEvent) {}
	}
	names, err := s.engine.ImageLoad(r.Context(), r.Body, report)
	for _, name := range names {
		out.send(jsonstream.Message{Stream: loadedLine(name)})
	}
	return out.close(err)
}

// loadedLine is the line clients show for a loaded image, named or not.
func loadedLine(name string) string {
	if strings.HasPrefix(name, "sha256:") {
		return "Loaded image ID: " + name + "\n"
	}
	return "Loaded image: " + name + "\n"
}

// imageSave answers GET /images/get with a tar of the images in names.
func (s *Server) imageSave(w *response, r *request) error {
	names := r.URL.Query()["names"]
	if len(names) == 0 {
		return errdefs.As(errdefs.ErrInvalid, errNoName)
	}
	return s.saveImages(w, r, names)
}

// saveImages writes the tar.
func (s *Server) saveImages(w *response, r *request, names []string) error {
	if len(r.URL.Query()["platform"]) > 0 {
		return notSupported("saving some platforms of an image only")
	}
	return s.engine.ImageSave(r.Context(), names, tarWriter{w})
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
