package docker

import "net/http"

// systemCheck answers /berth/system/check: GET looks, POST mends as well. The
// answer is an engine.CheckReport, and 200 whatever was found.
func (s *Server) systemCheck(w *response, r *request) error {
	report, err := s.engine.Check(r.Context(), r.Method == http.MethodPost)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, report)
}

// upgradeKeeper answers POST /berth/system/upgrade-keeper with an
// engine.KeeperUpgrade, when the keeper is the new program.
func (s *Server) upgradeKeeper(w *response, r *request) error {
	done, err := s.engine.UpgradeKeeper(r.Context())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, done)
}
