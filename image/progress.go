package image

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// The states of a layer, in Docker's words, which its clients know.
const (
	statusPulling  = "Pulling fs layer"
	statusDownload = "Downloading"
	statusVerify   = "Verifying Checksum"
	statusFetched  = "Download complete"
	statusExtract  = "Extracting"
	statusPulled   = "Pull complete"
	statusExists   = "Already exists"
	statusLoading  = "Loading layer"

	statusPreparing   = "Preparing"
	statusWaiting     = "Waiting"
	statusCompressing = "Compressing"
	statusPushing     = "Pushing"
	statusPushed      = "Pushed"
	statusLayerExists = "Layer already exists"

	progressEvery   = 100 * time.Millisecond
	shortDigestSize = 12
)

// ProgressEvent is one line of progress in the shape of Docker's JSON messages.
type ProgressEvent struct {
	// ID is the layer's short digest, or the tag in "Pulling from"; "" for a
	// line about the whole image.
	ID string
	// Status is the text.
	Status string
	// Current and Total count bytes; Total zero means there is no bar.
	Current, Total int64
	// Stream is a finished line of output that is not about progress ("Loaded
	// image: busybox:latest\n"); the other fields are then empty.
	Stream string
	// Pushed, when not nil, is a name that is at its registry now; the other
	// fields are then empty.
	Pushed *Pushed
}

// Pushed is where a name points at its registry.
type Pushed struct {
	Tag    string
	Digest digest.Digest
	// Size is the manifest's, in bytes.
	Size int64
}

// progress calls back one event at a time and not for every few bytes.
type progress struct {
	mu   sync.Mutex
	call func(ProgressEvent) // nil: nobody listens
	last map[string]ProgressEvent
	when map[string]time.Time
}

func newProgress(call func(ProgressEvent)) *progress {
	return &progress{call: call, last: map[string]ProgressEvent{}, when: map[string]time.Time{}}
}

func (p *progress) send(e ProgressEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.emit(e)
}

func (p *progress) emit(e ProgressEvent) {
	if p.call == nil {
		return
	}
	if e.ID != "" {
		if last, ok := p.last[e.ID]; ok && last == e {
			return
		}
		p.last[e.ID], p.when[e.ID] = e, time.Now()
	}
	p.call(e)
}

// count is send for a number that grows: between the first and the last of a
// status at most ten events a second get through.
func (p *progress) count(e ProgressEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last[e.ID].Status == e.Status && e.Current != e.Total && time.Since(p.when[e.ID]) < progressEvery {
		return
	}
	p.emit(e)
}

func (p *progress) line(status string)              { p.send(ProgressEvent{Status: status}) }
func (p *progress) layer(d digest.Digest, s string) { p.send(ProgressEvent{ID: short(d), Status: s}) }

// short is the digest as people see it.
func short(d digest.Digest) string {
	s := d.Encoded()
	return s[:min(len(s), shortDigestSize)]
}

func now() time.Time { return time.Now().UTC() }
