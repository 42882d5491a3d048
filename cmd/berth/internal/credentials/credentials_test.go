package credentials

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/registry"
)

// home makes a directory for config.json with the text, "" for none.
func home(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	path := filepath.Join(dir, "config.json")
	if text != "" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func open(t *testing.T) *File {
	t.Helper()
	f, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestGet(t *testing.T) {
	home(t, `{"auths": {
		"https://index.docker.io/v1/": {"auth": "bWU6c2VjcmV0"},
		"registry.example.com": {"auth": "bWU6", "identitytoken": "token"},
		"https://old.example.com/v1/": {"username": "me", "password": "a:b"},
		"empty.example.com": {},
		"broken.example.com": {"auth": "!"}
	}}`)
	f := open(t)
	for server, want := range map[string]*registry.AuthConfig{
		ServerOf("busybox"):              {Username: "me", Password: "secret", ServerAddress: DockerHub},
		ServerOf("library/busybox"):      {Username: "me", Password: "secret", ServerAddress: DockerHub},
		Server("docker.io"):              {Username: "me", Password: "secret", ServerAddress: DockerHub},
		"registry.example.com":           {Username: "me", IdentityToken: "token", ServerAddress: "registry.example.com"},
		ServerOf("old.example.com/x/y"):  {Username: "me", Password: "a:b", ServerAddress: "old.example.com"},
		"empty.example.com":              nil,
		ServerOf("nosuch.example.com/x"): nil,
		ServerOf("localhost/x"):          nil,
	} {
		got, err := f.Get(server)
		if err != nil || (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: %+v, %v; want %+v", server, got, err, want)
		}
	}
	if _, err := f.Get("broken.example.com"); err == nil || !strings.Contains(err.Error(), "broken.example.com") {
		t.Errorf("a broken entry: %v", err)
	}
}

// TestPutKeepsTheRest: what the file has for others stays.
func TestPutKeepsTheRest(t *testing.T) {
	path := home(t, `{"detachKeys": "ctrl-x", "auths": {"a.example.com": {"email": "x@y"}}}`)
	readable, err := open(t).Put(&registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: "b.example.com"})
	if err != nil || !readable {
		t.Fatalf("%v, %v", readable, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		DetachKeys string
		Auths      map[string]map[string]string
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if all.DetachKeys != "ctrl-x" || all.Auths["a.example.com"]["email"] != "x@y" || all.Auths["b.example.com"]["auth"] != "bWU6c2VjcmV0" {
		t.Errorf("file %s", text)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, want := range []bool{true, false} {
		if found, err := open(t).Remove("b.example.com"); err != nil || found != want {
			t.Errorf("remove: %v, %v; want %v", found, err, want)
		}
	}
}

func TestNoFile(t *testing.T) {
	path := home(t, "")
	if auth, err := open(t).Get(DockerHub); auth != nil || err != nil {
		t.Errorf("%+v, %v", auth, err)
	}
	if _, err := open(t).Put(&registry.AuthConfig{Username: "me", IdentityToken: "token", ServerAddress: DockerHub}); err != nil {
		t.Fatal(err)
	}
	if auth, err := open(t).Get(DockerHub); err != nil || auth == nil || auth.IdentityToken != "token" || auth.Password != "" {
		t.Errorf("%+v, %v", auth, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a broken file: %v", err)
	}
}

// TestHelper: a program that keeps the secrets of one registry in files.
func TestHelper(t *testing.T) {
	path := home(t, `{"credHelpers": {"kept.example.com": "test"}}`)
	dir := t.TempDir()
	t.Setenv("KEPT", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	program := `#!/bin/sh
case $1 in
store) cat >"$KEPT/secret" ;;
get) cat >/dev/null; cat "$KEPT/secret" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm "$KEPT/secret" ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	const server = "kept.example.com"
	if auth, err := open(t).Get(server); auth != nil || err != nil {
		t.Errorf("before: %+v, %v", auth, err)
	}
	for _, auth := range []registry.AuthConfig{
		{Username: "me", Password: "secret", ServerAddress: server}, {IdentityToken: "token", ServerAddress: server},
	} {
		if readable, err := open(t).Put(&auth); readable || err != nil {
			t.Errorf("store: %v, %v", readable, err)
		}
		if got, err := open(t).Get(server); err != nil || got == nil || *got != auth {
			t.Errorf("get: %+v, %v; want %+v", got, err, auth)
		}
	}
	if text, _ := os.ReadFile(path); strings.Contains(string(text), "token") {
		t.Errorf("the file has the secret: %s", text)
	}
	for _, want := range []bool{true, false} {
		if found, err := open(t).Remove(server); err != nil || found != want {
			t.Errorf("remove: %v, %v; want %v", found, err, want)
		}
	}
	home(t, `{"credsStore": "nosuch"}`)
	if _, err := open(t).Get(server); err == nil || !strings.Contains(err.Error(), "docker-credential-nosuch") {
		t.Errorf("no such helper: %v", err)
	}
}
