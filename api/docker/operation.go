package docker

import (
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/berth-containers/berth/engine"
)

// Each request is an operation of the engine: it can be listed, says what it
// waits for, and can be cancelled by somebody else.

// begin makes an operation of a request. end is called when the request has
// been answered.
func (s *Server) begin(w *response, r *http.Request) (named *http.Request, end func()) {
	kind, object := describe(r)
	ctx, op, ended := s.operations.Begin(r.Context(), kind, object)
	w.operation = op
	// Reading from a client, or writing to it, knows no context.
	stop := op.OnCancel(w.interrupt)
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &awaitedBody{ReadCloser: r.Body, operation: op}
	}
	return r, func() { stop(); ended() }
}

// interrupt makes what waits for the client fail, unless the answer's end is
// being written. It fails itself for connections that have been taken over,
// which end with their context.
func (w *response) interrupt() {
	w.ending.Lock()
	defer w.ending.Unlock()
	if w.ended {
		return
	}
	c := http.NewResponseController(w.ResponseWriter)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	_ = c.SetWriteDeadline(time.Unix(1, 0))
}

// cancelled is the error of a request whose operation was cancelled: what came
// of it, a deadline or an end of its context, is not the reason.
func (w *response) cancelled(err error) error {
	w.ending.Lock()
	defer w.ending.Unlock()
	w.ended = true
	cause := w.operation.Cancelled()
	if err == nil || cause == nil {
		return err
	}
	// The error is still to be written.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Time{})
	return cause
}

// clientReads is what an operation waits for that has something to say.
const clientReads = "the client to read the answer"

// awaitedBody notes when the client's data is waited for.
type awaitedBody struct {
	io.ReadCloser
	operation *engine.Operation
}

// Read reads what the client has sent.
func (b *awaitedBody) Read(p []byte) (int, error) {
	defer b.operation.AwaitsClient("the client's data")()
	return b.ReadCloser.Read(p)
}

// describe names a request by its route: what is done, "container stop" say, and
// to what.
func describe(r *http.Request) (kind, object string) {
	method, pattern, _ := strings.Cut(r.Pattern, " ")
	if pattern == "" {
		method, pattern = r.Method, method
	}
	var words []string
	for _, part := range strings.Split(strings.Trim(pattern, "/"), "/") {
		if !strings.HasPrefix(part, "{") {
			words = append(words, part)
			continue
		}
		value := r.PathValue(strings.Trim(part, "{.}"))
		if strings.HasPrefix(part, "{path") { // an image's name and what is done to it
			name, action := lastSegment(value)
			words, value = append(words, action), name
		}
		if object == "" {
			object = value
		}
	}
	if len(words) > 1 || method == http.MethodDelete {
		words[0] = strings.TrimSuffix(words[0], "s")
	}
	if len(words) == 1 && method == http.MethodDelete {
		words = append(words, "remove")
	}
	kind = strings.Join(words, " ")
	return special(r, kind, object)
}

// special gives routes their commands' names where the two differ, and the
// object that is not in the path.
func special(r *http.Request, kind, object string) (string, string) {
	query := r.URL.Query()
	switch kind {
	case "image create":
		if from := query.Get("fromImage"); from != "" {
			if tag := query.Get("tag"); tag != "" && !strings.Contains(tag, ":") {
				from += ":" + tag
			}
			return "image pull", from
		}
		return "image import", query.Get("repo")
	case "image get":
		if object == "" {
			object = strings.Join(query["names"], " ")
		}
		return "image save", object
	case "berth images load":
		return "image load", object
	case "commit":
		return "container commit", query.Get("container")
	case "container create":
		return kind, query.Get("name")
	}
	return strings.ReplaceAll(kind, " json", " inspect"), object
}

// operationList answers GET /berth/operations.
func (s *Server) operationList(w *response, r *request) error {
	list := s.operations.List()
	kept := list[:0]
	for _, o := range list {
		if o.Kind != operationsKind { // this very request
			kept = append(kept, o)
		}
	}
	leftovers, err := s.engine.Leftovers(r.Context())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, append(leftovers, kept...))
}

// operationsKind is what [describe] calls the list of operations.
const operationsKind = "berth operations"

// operationCancel answers DELETE /berth/operations/{id}.
func (s *Server) operationCancel(w *response, r *request) error {
	if err := s.operations.Cancel(r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}
