package docker

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/berth-containers/berth/errdefs"
)

// newRoutes is the table of everything this door answers. The patterns are
// net/http.ServeMux's; image names have slashes, so what follows /images/ is
// taken apart by [Server.imageGet] and [Server.imagePost].
func (s *Server) newRoutes() *http.ServeMux {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"GET /_ping":     s.ping, // GET patterns answer HEAD as well
		"GET /version":   s.serverVersion,
		"GET /info":      s.info,
		"GET /system/df": s.diskUsage,
		"GET /events":    s.events,

		"GET /containers/json":          s.containerList,
		"POST /containers/create":       s.containerCreate,
		"POST /containers/prune":        s.containerPrune,
		"GET /containers/{id}/json":     s.containerInspect,
		"GET /containers/{id}/top":      s.containerTop,
		"GET /containers/{id}/logs":     s.containerLogs,
		"GET /containers/{id}/stats":    s.containerStats,
		"GET /containers/{id}/export":   s.containerExport,
		"GET /containers/{id}/archive":  s.containerArchive,
		"PUT /containers/{id}/archive":  s.containerExtract,
		"GET /containers/{id}/changes":  s.containerChanges,
		"POST /containers/{id}/start":   s.containerStart,
		"POST /containers/{id}/stop":    s.containerStop,
		"POST /containers/{id}/restart": s.containerRestart,
		"POST /containers/{id}/kill":    s.containerKill,
		"POST /containers/{id}/pause":   s.containerPause,
		"POST /containers/{id}/unpause": s.containerUnpause,
		"POST /containers/{id}/wait":    s.containerWait,
		"POST /containers/{id}/rename":  s.containerRename,
		"POST /containers/{id}/update":  s.containerUpdate,
		"POST /containers/{id}/resize":  s.containerResize,
		"POST /containers/{id}/attach":  s.containerAttach,
		"DELETE /containers/{id}":       s.containerRemove,
		"POST /commit":                  s.containerCommit,

		"POST /containers/{id}/exec": s.execCreate,
		"POST /exec/{id}/start":      s.execStart,
		"POST /exec/{id}/resize":     s.execResize,
		"GET /exec/{id}/json":        s.execInspect,

		"GET /images/json":         s.imageList,
		"GET /images/get":          s.imageSave,
		"POST /images/create":      s.imageCreate,
		"POST /images/load":        s.imageLoad,
		"POST /images/prune":       s.imagePrune,
		"GET /images/{path...}":    s.imageGet,
		"POST /images/{path...}":   s.imagePost,
		"DELETE /images/{name...}": s.imageRemove,

		"POST /auth":                  s.registryLogin,
		"GET /distribution/{path...}": s.distribution,

		"GET /networks":             s.networkList,
		"GET /networks/{id}":        s.networkInspect,
		"POST /networks/prune":      s.networkPrune,
		"GET /volumes":              s.volumeList,
		"POST /volumes/create":      s.volumeCreate,
		"GET /volumes/{name...}":    s.volumeInspect,
		"DELETE /volumes/{name...}": s.volumeRemove,
		"POST /volumes/prune":       s.volumePrune,
		"POST /build/prune":         s.buildPrune,

		"POST /berth/images/load":            s.imageLoadFile,
		"GET /berth/system/check":            s.systemCheck,
		"POST /berth/system/check":           s.systemCheck,
		"POST /berth/system/upgrade-keeper":  s.upgradeKeeper,
		"GET /berth/containers/{id}/explain": s.containerExplain,
		"GET /berth/top":                     s.overview,
		"GET /berth/operations":              s.operationList,
		"DELETE /berth/operations/{id}":      s.operationCancel,
	} {
		mux.HandleFunc(pattern, s.handle(h))
	}
	for pattern, what := range unsupported {
		mux.HandleFunc(pattern, s.handle(func(*response, *request) error { return notSupported(what) }))
	}
	mux.HandleFunc("/", s.handle(pageNotFound))
	return mux
}

// unsupported are the routes of the API that Berth does not have, and what to
// call them in the error.
var unsupported = map[string]string{
	"GET /containers/{id}/attach/ws":         "attaching by WebSocket",
	"/containers/{id}/checkpoints":           "checkpoints",
	"/containers/{id}/checkpoints/{rest...}": "checkpoints",
	"POST /build":                            "building images",
	"POST /build/cancel":                     "building images",
	"POST /session":                          "building images",
	"POST /grpc":                             "building images",
	"GET /images/search":                     "searching a registry",
	"POST /networks/create":                  "creating networks",
	"POST /networks/{id}/connect":            "connecting a container to a further network",
	"POST /networks/{id}/disconnect":         "disconnecting a container from a network",
	"DELETE /networks/{id}":                  "removing networks",
	"PUT /volumes/{name}":                    "cluster volumes",
	"/swarm":                                 "swarm mode",
	"/swarm/{rest...}":                       "swarm mode",
	"/nodes":                                 "swarm mode",
	"/nodes/{rest...}":                       "swarm mode",
	"/services":                              "swarm mode",
	"/services/{rest...}":                    "swarm mode",
	"/tasks":                                 "swarm mode",
	"/tasks/{rest...}":                       "swarm mode",
	"/secrets":                               "swarm mode",
	"/secrets/{rest...}":                     "swarm mode",
	"/configs":                               "swarm mode",
	"/configs/{rest...}":                     "swarm mode",
	"/plugins":                               "Docker plugins",
	"/plugins/{rest...}":                     "Docker plugins",
}

// notSupported says that Berth has no such feature.
func notSupported(what string) error {
	return errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("%s: not supported by this version of Berth", what))
}

// pageNotFound answers what the API does not have.
func pageNotFound(w *response, _ *request) error {
	writeError(w, http.StatusNotFound, "page not found")
	return nil
}

// lastSegment splits "docker.io/library/busybox/json" into name and action.
func lastSegment(path string) (name, action string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}
