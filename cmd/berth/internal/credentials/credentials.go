// Package credentials keeps what registries are shown, where Docker's clients
// keep it, so that one login serves both: config.json below $DOCKER_CONFIG or
// ~/.docker, with the passwords in it or in a credential helper
// (docker-credential-NAME, which speaks the protocol of
// github.com/docker/docker-credential-helpers).
package credentials

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// DockerHub is the name docker.io has in the file.
const DockerHub = "https://index.docker.io/v1/"

// File is config.json. What is in it beyond credentials is kept as it is.
type File struct {
	// Path is where it is, or would be.
	Path string

	all     map[string]json.RawMessage
	auths   map[string]json.RawMessage
	store   string
	helpers map[string]string
}

// entry is what auths holds about a registry.
type entry struct {
	Auth          string `json:"auth,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// Open reads the file; one that is not there is empty.
func Open() (*File, error) {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("find the credentials: %w", err)
		}
		dir = filepath.Join(home, ".docker")
	}
	f := &File{
		Path: filepath.Join(dir, "config.json"),
		all:  map[string]json.RawMessage{}, auths: map[string]json.RawMessage{}, helpers: map[string]string{},
	}
	text, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = f.parse(text)
	}
	if err != nil {
		return nil, fmt.Errorf("read credentials from %s: %w", f.Path, err)
	}
	return f, nil
}

// DetachKeys are the keys that end an attachment, "" when the file does not say.
func (f *File) DetachKeys() (keys string, err error) {
	if text, there := f.all["detachKeys"]; there {
		if err := json.Unmarshal(text, &keys); err != nil {
			return "", fmt.Errorf("read detachKeys from %s: %w", f.Path, err)
		}
	}
	return keys, nil
}

func (f *File) parse(text []byte) error {
	if err := json.Unmarshal(text, &f.all); err != nil {
		return err
	}
	for name, into := range map[string]any{"auths": &f.auths, "credsStore": &f.store, "credHelpers": &f.helpers} {
		if raw, ok := f.all[name]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// Server is the name by which the file knows a registry as people write it.
func Server(address string) string {
	_, host, ok := strings.Cut(address, "://")
	if !ok {
		host = address
	}
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io":
		return DockerHub
	}
	return host
}

// ServerOf is the name by which the file knows the registry of an image.
func ServerOf(image string) string {
	first, _, hasPath := strings.Cut(image, "/")
	if !hasPath || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return DockerHub
	}
	return Server(first)
}

// helper is the helper that is asked about a registry; "" for none.
func (f *File) helper(server string) string {
	if name, ok := f.helpers[server]; ok {
		return name
	}
	if server == DockerHub {
		for _, name := range []string{"docker.io", "index.docker.io"} {
			if helper, ok := f.helpers[name]; ok {
				return helper
			}
		}
	}
	return f.store
}

// Get returns the credentials for a registry, nil when there are none.
func (f *File) Get(server string) (*registry.AuthConfig, error) {
	if name := f.helper(server); name != "" {
		return helper{name}.get(server)
	}
	raw, ok := f.entry(server)
	if !ok {
		return nil, nil
	}
	var e entry
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("credentials for %s in %s: %w", server, f.Path, err)
	}
	auth := &registry.AuthConfig{
		Username: e.Username, Password: e.Password, ServerAddress: server,
		IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken,
	}
	if e.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(e.Auth)
		user, password, ok := strings.Cut(string(text), ":")
		if err != nil || !ok {
			return nil, fmt.Errorf("credentials for %s in %s: the field auth is not base64 of USER:PASSWORD", server, f.Path)
		}
		auth.Username, auth.Password = user, strings.TrimRight(password, "\x00")
	}
	if *auth == (registry.AuthConfig{ServerAddress: server}) {
		return nil, nil
	}
	return auth, nil
}

// entry finds a registry in auths, under its name or a URL of its host, as
// older clients wrote it.
func (f *File) entry(server string) (json.RawMessage, bool) {
	if raw, ok := f.auths[server]; ok {
		return raw, true
	}
	for name, raw := range f.auths {
		if Server(name) == server {
			return raw, true
		}
	}
	return nil, false
}

// Put keeps credentials, with a helper where one is configured. It tells
// whether they lie in the file where its owner can read them.
func (f *File) Put(auth *registry.AuthConfig) (readable bool, err error) {
	server := auth.ServerAddress
	if name := f.helper(server); name != "" {
		if err := (helper{name}).store(auth); err != nil {
			return false, err
		}
		f.auths[server] = json.RawMessage(`{}`) // says that there was a login
		return false, f.save()
	}
	e := entry{IdentityToken: auth.IdentityToken}
	if auth.IdentityToken == "" {
		e.Auth = base64.StdEncoding.EncodeToString([]byte(auth.Username + ":" + auth.Password))
	} else {
		// The token stands for the password.
		e.Auth = base64.StdEncoding.EncodeToString([]byte(auth.Username + ":"))
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return false, err
	}
	f.auths[server] = raw
	return true, f.save()
}

// Remove forgets a registry's credentials and tells whether there were any.
func (f *File) Remove(server string) (found bool, err error) {
	for name := range f.auths {
		if name == server || Server(name) == server {
			delete(f.auths, name)
			found = true
		}
	}
	if name := f.helper(server); name != "" {
		had, err := helper{name}.erase(server)
		if err != nil {
			return found, err
		}
		found = found || had
	}
	if !found {
		return false, nil
	}
	return true, f.save()
}

// save writes the file so that it is the old or the new one at any time. A link
// stays one: people keep the file elsewhere.
func (f *File) save() error {
	raw, err := json.Marshal(f.auths)
	if err != nil {
		return err
	}
	f.all["auths"] = raw
	text, err := json.MarshalIndent(f.all, "", "\t")
	if err != nil {
		return err
	}
	path := f.Path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".config.json.*")
	if err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	_, err = tmp.Write(append(text, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write credentials: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// Header is the value of the API's field that carries credentials.
func Header(auth *registry.AuthConfig) (string, error) {
	text, err := json.Marshal(auth)
	if err != nil {
		return "", err
	}
	return base64.URLEncoding.EncodeToString(text), nil
}
