package docker

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
)

// ping answers GET and HEAD /_ping; the headers tell the client which API
// version to speak.
func (s *Server) ping(w *response, r *request) error {
	header := w.Header()
	header.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	header.Set("Pragma", "no-cache")
	header.Set("Swarm", "inactive")
	header.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		header.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, _ = io.WriteString(w, "OK")
	return nil
}

// serverVersion answers GET /version.
func (s *Server) serverVersion(w *response, r *request) error {
	v, err := s.engine.Version(r.Context())
	if err != nil {
		return err
	}
	v.APIVersion, v.MinAPIVersion = currentVersion.String(), minimumVersion.String()
	for _, component := range v.Components {
		if component.Name == "Engine" { // where the docker CLI reads them
			component.Details["ApiVersion"], component.Details["MinAPIVersion"] = v.APIVersion, v.MinAPIVersion
		}
	}
	return reply(w, http.StatusOK, v)
}

// info answers GET /info.
func (s *Server) info(w *response, r *request) error {
	info, err := s.engine.Info(r.Context())
	if err != nil {
		return err
	}
	info.Swarm.LocalNodeState = swarm.LocalNodeStateInactive
	return reply(w, http.StatusOK, info)
}

// diskUsage answers GET /system/df.
func (s *Server) diskUsage(w *response, r *request) error {
	usage, err := s.engine.DiskUsage(r.Context())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, usageFor(r.version, usage, r.boolean("verbose")))
}

// events answers GET /events: one JSON object per event until the client
// leaves or until has passed. The headers go out at once, so that the client
// knows that nothing is missed from now on.
func (s *Server) events(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	since, err := r.time("since")
	if err != nil {
		return err
	}
	until, err := r.time("until")
	if err != nil {
		return err
	}
	ctx, cancel := s.stream(r)
	defer cancel()
	incoming, err := s.engine.Subscribe(ctx, filters, since, until)
	if err != nil {
		return err
	}
	mediaType := r.eventsType()
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(http.StatusOK)
	if err := w.flush(); err != nil {
		return ended(ctx, err)
	}
	encoder := json.NewEncoder(w)
	for e := range incoming {
		if mediaType == types.MediaTypeJSONSequence {
			_, _ = w.Write([]byte{0x1e}) // RFC 7464: each text begins with RS
		}
		if err := encoder.Encode(eventFor(r.version, e)); err != nil {
			return ended(ctx, err)
		}
		if err := w.flush(); err != nil {
			return ended(ctx, err)
		}
	}
	return nil
}

// eventsType picks how events are delimited. The framings but json-seq are the
// same bytes under different names; the first the client accepts is taken.
func (r *request) eventsType() string {
	if r.version >= 52 {
		for _, accepted := range strings.Split(strings.Join(r.Header.Values("Accept"), ","), ",") {
			kind, _, _ := strings.Cut(accepted, ";")
			switch kind = strings.TrimSpace(kind); kind {
			case types.MediaTypeJSONLines, types.MediaTypeNDJSON, types.MediaTypeJSONSequence:
				return kind
			}
		}
	}
	return types.MediaTypeJSON
}

// networkList answers GET /networks.
func (s *Server) networkList(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	list, err := s.engine.NetworkList(r.Context(), filters)
	if err != nil {
		return err
	}
	if list == nil {
		list = []network.Summary{}
	}
	return reply(w, http.StatusOK, list)
}

// networkInspect answers GET /networks/{id}.
func (s *Server) networkInspect(w *response, r *request) error {
	found, err := s.engine.NetworkInspect(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, found)
}

// networkPrune answers POST /networks/prune: the predefined networks are all
// there are, and they are never pruned.
func (s *Server) networkPrune(w *response, _ *request) error {
	return reply(w, http.StatusOK, network.PruneReport{NetworksDeleted: []string{}})
}

// buildPrune answers POST /build/prune: there is no build cache.
func (s *Server) buildPrune(w *response, _ *request) error {
	return reply(w, http.StatusOK, build.CachePruneReport{CachesDeleted: []string{}})
}
