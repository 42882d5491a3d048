package credentials

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// tokenUser is the user name by which helpers keep an identity token.
const tokenUser = "<token>"

// notFound is what helpers print, by their protocol, when they have nothing.
const notFound = "credentials not found in native keychain"

// helper is the program docker-credential-NAME: it takes an action as its
// argument and its input on standard input, and answers in JSON. Its errors are
// on standard output.
type helper struct{ name string }

// secret is what a helper is given and gives.
type secret struct {
	ServerURL, Username, Secret string
}

func (h helper) run(action, input string) (string, error) {
	program := "docker-credential-" + h.name
	cmd := exec.Command(program, action)
	cmd.Stdin = strings.NewReader(input)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	text := strings.TrimSpace(out.String())
	var exit *exec.ExitError
	switch {
	case err == nil:
		return text, nil
	case !errors.As(err, &exit):
		return "", fmt.Errorf("credential helper: %w", err)
	case text == notFound:
		return "", errAbsent
	case text == "":
		text = strings.TrimSpace(errOut.String())
	}
	return "", fmt.Errorf("%s %s: %s (%w)", program, action, text, err)
}

var errAbsent = errors.New(notFound)

func (h helper) get(server string) (*registry.AuthConfig, error) {
	text, err := h.run("get", server)
	if errors.Is(err, errAbsent) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s secret
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return nil, fmt.Errorf("docker-credential-%s get: %w", h.name, err)
	}
	if s.Username == tokenUser {
		return &registry.AuthConfig{IdentityToken: s.Secret, ServerAddress: server}, nil
	}
	return &registry.AuthConfig{Username: s.Username, Password: s.Secret, ServerAddress: server}, nil
}

func (h helper) store(auth *registry.AuthConfig) error {
	s := secret{auth.ServerAddress, auth.Username, auth.Password}
	if auth.IdentityToken != "" {
		s.Username, s.Secret = tokenUser, auth.IdentityToken
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = h.run("store", string(text))
	return err
}

// erase tells whether there was something. Some helpers do not say: asking
// first makes sure.
func (h helper) erase(server string) (had bool, err error) {
	auth, err := h.get(server)
	if err != nil || auth == nil {
		return false, err
	}
	if _, err := h.run("erase", server); err != nil && !errors.Is(err, errAbsent) {
		return true, err
	}
	return true, nil
}
