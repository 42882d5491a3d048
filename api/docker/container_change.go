package docker

import (
	"errors"
	"net/http"

	"github.com/berth-containers/berth/engine"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// errNoExit: the engine ended a wait without an exit, because it or the client
// is going away.
var errNoExit = errors.New("the wait ended before the container did")

// createBody is the body of a create request with what older clients send
// beside today's fields.
type createBody struct {
	container.CreateRequest
	// MacAddress was the container's MAC address up to API 1.51; since 1.44
	// it belongs to the endpoint.
	MacAddress network.HardwareAddr
}

// containerCreate answers POST /containers/create.
func (s *Server) containerCreate(w *response, r *request) error {
	var body createBody
	if err := r.body(&body); err != nil {
		return err
	}
	if body.Config == nil {
		return invalid("config cannot be empty in order to create a container")
	}
	platform, err := r.platform()
	if err != nil {
		return err
	}
	if body.HostConfig == nil {
		body.HostConfig = &container.HostConfig{}
	}
	if r.version < 52 {
		moveMacAddress(&body)
	}
	created, err := s.engine.ContainerCreate(r.Context(), r.value("name"), &body.CreateRequest, platform)
	if err != nil {
		return err
	}
	if created.Warnings == nil {
		created.Warnings = []string{}
	}
	return reply(w, http.StatusCreated, created)
}

// moveMacAddress moves the container-wide MAC address to the endpoint of the
// network the container is created in, unless that has one.
func moveMacAddress(body *createBody) {
	if len(body.MacAddress) == 0 {
		return
	}
	name := string(body.HostConfig.NetworkMode)
	if name == "" || name == network.NetworkDefault {
		name = network.NetworkBridge
	}
	if body.NetworkingConfig == nil {
		body.NetworkingConfig = &network.NetworkingConfig{}
	}
	endpoints := body.NetworkingConfig.EndpointsConfig
	if endpoints == nil {
		endpoints = make(map[string]*network.EndpointSettings)
		body.NetworkingConfig.EndpointsConfig = endpoints
	}
	if endpoints[name] == nil {
		endpoints[name] = &network.EndpointSettings{}
	}
	if len(endpoints[name].MacAddress) == 0 {
		endpoints[name].MacAddress = body.MacAddress
	}
}

// containerRename answers POST /containers/{id}/rename.
func (s *Server) containerRename(w *response, r *request) error {
	if err := s.engine.ContainerRename(r.Context(), r.PathValue("id"), r.value("name")); err != nil {
		return err
	}
	return noContent(w)
}

// containerUpdate answers POST /containers/{id}/update.
func (s *Server) containerUpdate(w *response, r *request) error {
	var update container.UpdateConfig
	if err := r.body(&update); err != nil {
		return err
	}
	answer, err := s.engine.ContainerUpdate(r.Context(), r.PathValue("id"), &update)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, answer)
}

// containerCommit answers POST /commit.
func (s *Server) containerCommit(w *response, r *request) error {
	var config *container.Config
	if _, err := r.optionalBody(&config); err != nil {
		return err
	}
	id, err := s.engine.ContainerCommit(r.Context(), engine.CommitOptions{
		Container: r.value("container"),
		Ref:       r.reference("repo"),
		Author:    r.value("author"),
		Comment:   r.value("comment"),
		Changes:   r.URL.Query()["changes"],
		Config:    config,
		Pause:     r.booleanOr("pause", true),
	})
	if err != nil {
		return err
	}
	return reply(w, http.StatusCreated, container.CommitResponse{ID: id})
}

// containerExport answers GET /containers/{id}/export with a tar.
func (s *Server) containerExport(w *response, r *request) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	return s.engine.ContainerExport(r.Context(), r.PathValue("id"), w)
}
