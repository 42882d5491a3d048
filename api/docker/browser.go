package docker

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/berth-containers/berth/errdefs"
)

var errBrowser = errors.New("requests from a web page or under a foreign host name are refused")

// tcpKey marks the context of connections that came over TCP.
type tcpKey struct{}

// markLocalTCP marks connections over TCP, for [refuseBrowser].
func markLocalTCP(ctx context.Context, c net.Conn) context.Context {
	if _, ok := c.LocalAddr().(*net.TCPAddr); ok {
		return context.WithValue(ctx, tcpKey{}, true)
	}
	return ctx
}

// refuseBrowser keeps web pages from the API. A socket in the file system has
// permissions, a loopback port has none: any page in a browser of this host can
// send requests there. Browsers give themselves away by an Origin header, or,
// after DNS rebinding, by a Host that is not a loopback name.
func refuseBrowser(r *http.Request) error {
	if r.Context().Value(tcpKey{}) == nil {
		return nil
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	ip := net.ParseIP(host)
	if r.Header.Get("Origin") != "" || (host != "localhost" && (ip == nil || !ip.IsLoopback())) {
		return errdefs.WithHint(errdefs.As(errdefs.ErrPermission, errBrowser), "use the unix socket, or address the port as 127.0.0.1 or localhost")
	}
	return nil
}
