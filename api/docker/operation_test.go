package docker

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/berth-containers/berth/engine"
)

func TestDescribeRequests(t *testing.T) {
	for _, test := range []struct{ method, path, want string }{
		{"POST", "/containers/web/stop?t=5", "container stop|web"},
		{"POST", "/v1.44/containers/web/stop", "container stop|web"},
		{"DELETE", "/containers/web", "container remove|web"},
		{"GET", "/containers/web/json", "container inspect|web"},
		{"POST", "/containers/create?name=web", "container create|web"},
		{"POST", "/commit?container=web", "container commit|web"},
		{"POST", "/exec/e1/start", "exec start|e1"},
		{"POST", "/images/create?fromImage=busybox&tag=1", "image pull|busybox:1"},
		{"POST", "/images/create?fromSrc=-&repo=own", "image import|own"},
		{"GET", "/images/get?names=a&names=b", "image save|a b"},
		{"GET", "/images/some/name/get", "image save|some/name"},
		{"POST", "/images/some/name/push", "image push|some/name"},
		{"DELETE", "/images/some/name", "image remove|some/name"},
		{"GET", "/events", "events|"},
		{"GET", "/berth/operations", operationsKind + "|"},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			s := New(Config{})
			req, err := http.NewRequest(test.method, test.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, req, err = splitVersion(req)
			if err != nil {
				t.Fatal(err)
			}
			_, pattern := s.routes.Handler(req)
			got := ""
			mux := http.NewServeMux()
			mux.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) {
				kind, object := describe(r)
				got = kind + "|" + object
			})
			mux.ServeHTTP(nil, req)
			if got != test.want {
				t.Errorf("%s: %q, want %q", pattern, got, test.want)
			}
		})
	}
}

// stuckEngine waits for its client or for the end of its context.
type stuckEngine struct {
	Engine
	began chan struct{}
}

func (e *stuckEngine) Leftovers(context.Context) ([]engine.OperationInfo, error) { return nil, nil }

func (e *stuckEngine) ContainerStart(ctx context.Context, _ string) error {
	close(e.began)
	<-ctx.Done()
	return ctx.Err()
}

func (e *stuckEngine) ImageLoad(_ context.Context, r io.Reader, _ engine.ImageLoadOptions) ([]string, error) {
	if _, err := r.Read(make([]byte, 1)); err != nil {
		return nil, err
	}
	close(e.began)
	_, err := io.Copy(io.Discard, r)
	return nil, err
}

// TestOperationCancel: what waits, in the engine or for the client, ends with
// an error that says why.
func TestOperationCancel(t *testing.T) {
	for _, test := range []struct {
		name, path string
		sends      bool
	}{
		{"container start web", "/containers/web/start", false},
		{"image load ", "/images/load", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := &stuckEngine{began: make(chan struct{})}
			socket, s := serve(t, e)
			client := httpClient(t, socket)
			data, feed := io.Pipe()
			defer feed.Close()
			var body io.Reader
			if test.sends {
				body = data
			}
			answer := make(chan string, 1)
			go func() {
				req, err := http.NewRequest("POST", "http://berth"+test.path, body)
				if err != nil {
					answer <- err.Error()
					return
				}
				resp, err := client.Do(req)
				if err != nil {
					answer <- err.Error()
					return
				}
				defer resp.Body.Close()
				text, _ := io.ReadAll(resp.Body) // what came is the answer
				answer <- resp.Status + " " + string(text)
			}()
			if test.sends {
				if _, err := feed.Write([]byte("xx")); err != nil {
					t.Fatal(err)
				}
			}
			<-e.began
			list := s.operations.List()
			if len(list) != 1 || list[0].Kind+" "+list[0].Object != test.name {
				t.Fatalf("operations are %+v", list)
			}
			if err := s.operations.Cancel(list[0].ID); err != nil {
				t.Fatal(err)
			}
			if got := <-answer; !strings.Contains(got, "cancelled as operation") {
				t.Errorf("the client hears %q", got)
			}
		})
	}
}

// leftoverEngine has still something to clean up.
type leftoverEngine struct{ Engine }

func (leftoverEngine) Leftovers(context.Context) ([]engine.OperationInfo, error) {
	return []engine.OperationInfo{{ID: "-", Kind: "clean up", Object: "/trash/1", WaitingFor: "its files to be free"}}, nil
}

// TestOperationList: the engine's own work is listed, the question itself is not.
func TestOperationList(t *testing.T) {
	socket, _ := serve(t, leftoverEngine{})
	resp, err := httpClient(t, socket).Get("http://berth/berth/operations")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list []engine.OperationInfo
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Kind != "clean up" || list[0].WaitingFor == "" {
		t.Errorf("operations are %+v", list)
	}
}
