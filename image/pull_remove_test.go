package image

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// pullRemoving is a store in which an image is pulled while images are removed.
type pullRemoving struct {
	s *Store
	f *fakeRegistry
	// tag is what is pulled, other an image that shares a layer with it.
	tag, other string
	files      []string // that the image has in the end
}

// The images the store may have when the pull begins.
var pullRemovingCases = map[string]func(t *testing.T, p *pullRemoving){
	"nothing there yet": func(*testing.T, *pullRemoving) {},
	"the tag is another image's": func(t *testing.T, p *pullRemoving) {
		p.f.put(t, "v1", here(), tarOf(t, reg("shared", "s")), tarOf(t, reg("old", "o")))
		p.pull(t)
	},
	"the image is there": func(t *testing.T, p *pullRemoving) {
		p.serve(t)
		p.pull(t)
	},
}

func newPullRemoving(t *testing.T) *pullRemoving {
	p := &pullRemoving{s: openTest(t), f: newFakeRegistry(t), files: []string{"new", "shared"}}
	p.tag, p.other = p.f.host+"/app:v1", p.f.host+"/app:other"
	p.f.put(t, "other", here(), tarOf(t, reg("shared", "s")), tarOf(t, reg("beside", "b")))
	_, err := p.s.Pull(context.Background(), p.other, PullOptions{})
	must(t, err)
	return p
}

func (p *pullRemoving) serve(t *testing.T) {
	p.f.put(t, "v1", here(), tarOf(t, reg("shared", "s")), tarOf(t, reg("new", "n")))
}

func (p *pullRemoving) pull(t *testing.T) {
	_, err := p.s.Pull(context.Background(), p.tag, PullOptions{})
	must(t, err)
}

// remove removes the tag that is pulled and the other image.
func (p *pullRemoving) remove(t *testing.T) {
	for _, ref := range []string{p.tag, p.other} {
		if _, err := p.s.Remove(context.Background(), ref, RemoveOptions{Force: true}); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("remove %s: %v", ref, err)
		}
	}
}

// TestRemoveDuringPull: whatever is removed while an image is pulled, the pull
// brings all of it, and what is left is what leads somewhere. A removal of the tag
// once the image has it is one of the image.
func TestRemoveDuringPull(t *testing.T) {
	points := []string{
		string(fault.BlobCommitted), string(fault.LayerPrepared), string(fault.LayerExtracted), string(fault.LayerListed),
		string(fault.LayerCommitted), string(fault.ImageRecorded),
	}
	statuses := []string{"Pulling from app", statusPulling, statusDownload, statusFetched, statusExtract, statusExists, statusPulled}
	fired := map[string]bool{}
	for name, prepare := range pullRemovingCases {
		for _, at := range append(points, statuses...) {
			t.Run(name+"/"+at, func(t *testing.T) {
				p := newPullRemoving(t)
				prepare(t, p)
				p.serve(t)
				var once sync.Once
				reached := func(what string) {
					if what == at {
						once.Do(func() {
							fault.Watch(nil) // the removal has points, too
							p.remove(t)
							fired[at] = true
						})
					}
				}
				defer fault.Watch(nil)
				fault.Watch(func(point fault.Point) { reached(string(point)) })
				p.check(t, PullOptions{Progress: func(e ProgressEvent) { reached(e.Status) }})
			})
		}
	}
	for _, at := range append(points, statuses...) {
		if !fired[at] {
			t.Errorf("no pull came by %s", at)
		}
	}
}

// check pulls and looks at what came of it.
func (p *pullRemoving) check(t *testing.T, opts PullOptions) {
	ctx := context.Background()
	img, err := p.s.Pull(ctx, p.tag, opts)
	must(t, err)
	switch _, err := p.s.Get(ctx, p.tag); {
	case err == nil:
		must(t, p.s.Prepare(ctx, "c", img))
		if got := tree(t, mounted(t, p.s, "c")); !slices.Equal(got, p.files) {
			t.Errorf("the image has %q, want %q", got, p.files)
		}
		p.saves(t)
		must(t, p.s.RemoveSnapshot(ctx, "c"))
	case !errors.Is(err, errdefs.ErrNotFound):
		t.Error(err)
	}
	p.remove(t)
	_, _, err = p.s.Prune(ctx, PruneOptions{}) // the image that lost its tag to the new one
	must(t, err)
	if got := left(t, p.s); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}

// saves checks that all blobs of the image are there.
func (p *pullRemoving) saves(t *testing.T) {
	out, err := os.Create(t.TempDir() + "/image.tar")
	must(t, err)
	must(t, errors.Join(p.s.Save(context.Background(), []string{p.tag}, out, SaveOptions{}), out.Close()))
}
