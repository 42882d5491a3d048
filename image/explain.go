package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

func isDiskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// isCorrupt tells whether the content store refused a blob because it is not
// what its digest or size says. containerd has no type of its own for it.
func isCorrupt(err error) bool {
	return cerrdefs.IsFailedPrecondition(err) && !isDiskFull(err)
}

// isTransient tells whether asking again may help.
func isTransient(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || isDiskFull(err) {
		return false
	}
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		return status.StatusCode >= 500
	}
	var op *net.OpError
	var nerr net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errors.As(err, &op) && op.Op == "read" || errors.As(err, &nerr) && nerr.Timeout()
}

// explain adds what a person can do about errors of the store itself.
func (s *Store) explain(err error) error {
	if !isDiskFull(err) {
		return err
	}
	var fs unix.Statfs_t
	room := ""
	if unix.Statfs(s.root, &fs) == nil {
		room = fmt.Sprintf(" (%d MiB in all)", fs.Blocks*uint64(fs.Bsize)>>20)
	}
	return errdefs.WithHint(err, fmt.Sprintf("make room on the file system of %s%s, or remove images that are not needed", s.root, room))
}

// explainRegistry gives an error of speaking to the registry of named its
// class, a short text and a hint.
func (s *Store) explainRegistry(named reference.Named, err error) error {
	domain := reference.Domain(named)
	var status remoteerrors.ErrUnexpectedStatus
	var regErrs docker.Errors
	hasStatus, hasCodes := errors.As(err, &status), errors.As(err, &regErrs)
	switch {
	case isDiskFull(err), errors.Is(err, context.Canceled), errdefs.Hint(err) != "":
		return s.explain(err)
	case errors.Is(err, docker.ErrInvalidAuthorization),
		hasStatus && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden),
		strings.Contains(err.Error(), "missing username or secret"):
		return errdefs.WithHint(
			errdefs.As(errdefs.ErrPermission, fmt.Errorf("access denied by %s: the repository does not exist or needs credentials", domain)),
			"check the name; a private repository needs a login: berth login"+loginArgument(domain))
	case hasStatus && status.StatusCode == http.StatusTooManyRequests:
		return errdefs.WithHint(
			errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("%s: too many requests", domain)),
			"wait, or log in: registries limit anonymous pulls")
	case cerrdefs.IsNotFound(err), hasStatus && status.StatusCode == http.StatusNotFound:
		return errdefs.WithHint(
			errdefs.As(errdefs.ErrNotFound, fmt.Errorf("no such image at %s", domain)),
			"check the spelling of the name and the tag")
	case cerrdefs.IsNotImplemented(err):
		return errdefs.WithHint(errdefs.As(errdefs.ErrUnsupported, err), "the image is in a format of before 2016; it has to be built or pushed again")
	case hasStatus:
		text := fmt.Errorf("%s answers %s", domain, status.Status)
		if hasCodes {
			text = fmt.Errorf("%w: %w", text, regErrs)
		}
		return errdefs.As(errdefs.ErrUnavailable, text)
	}
	return unreachable(domain, err)
}

// loginArgument is what names the registry to berth login.
func loginArgument(domain string) string {
	if domain == "docker.io" {
		return ""
	}
	return " " + domain
}

// unreachable explains errors below HTTP.
func unreachable(domain string, err error) error {
	var uerr *url.Error
	if !errors.As(err, &uerr) {
		return err
	}
	cause := errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("registry %s: %w", domain, uerr.Err))
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var verify *tls.CertificateVerificationError
	switch {
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return errdefs.WithHint(cause, fmt.Sprintf("if %s speaks plain HTTP, list it as an insecure registry", domain))
	case errors.As(err, &unknown), errors.As(err, &verify):
		return errdefs.WithHint(cause, fmt.Sprintf("install the certificate authority of %s on this host or as /etc/berth/certs.d/%s/ca.crt, or list it as an insecure registry", domain, domain))
	}
	return errdefs.WithHint(cause, "check the registry's name and port, and that this host reaches it")
}
