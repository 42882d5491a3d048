package engine

import (
	"crypto/rand"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/berth-containers/berth/errdefs"
)

// nameRule is what Docker allows as a container's name.
var nameRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// roster finds containers by id, name and unique id prefix, and hands out
// names so that two requests never get the same one.
type roster struct {
	mu    sync.RWMutex
	byID  map[string]*ctr
	names map[string]string // name → id, reserved before the container exists
}

func newRoster() *roster {
	return &roster{byID: map[string]*ctr{}, names: map[string]string{}}
}

// reserve takes name for id. An empty name gets a generated one.
func (r *roster) reserve(name, id string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name == "" {
		return r.reserveGenerated(id), nil
	}
	name = strings.TrimPrefix(name, "/")
	if !nameRule.MatchString(name) {
		return "", invalidf("invalid container name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	if holder, taken := r.names[name]; taken {
		err := conflictf("container name %q is already in use by container %s", name, short(holder))
		return "", errdefs.WithHint(err, "remove or rename that container, or choose another name")
	}
	r.names[name] = id
	return name, nil
}

// reserveGenerated tries a few generated names, then falls back on the id.
func (r *roster) reserveGenerated(id string) string {
	name := short(id)
	for attempt := range 6 {
		candidate := generateName(attempt)
		if _, taken := r.names[candidate]; !taken {
			name = candidate
			break
		}
	}
	r.names[name] = id
	return name
}

// release gives a name back if id holds it.
func (r *roster) release(name, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names[name] == id {
		delete(r.names, name)
	}
}

// add makes a container findable.
func (r *roster) add(c *ctr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byID[c.id] = c
}

// remove forgets a container and its name.
func (r *roster) remove(c *ctr, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, c.id)
	if r.names[name] == c.id {
		delete(r.names, name)
	}
}

// get finds a container by full id, name (with or without its slash) or unique
// id prefix, in this order.
func (r *roster) get(ref string) (*ctr, error) {
	if ref == "" {
		return nil, invalidf("no container named")
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if c := r.byID[ref]; c != nil {
		return c, nil
	}
	if c := r.byID[r.names[strings.TrimPrefix(ref, "/")]]; c != nil {
		return c, nil
	}
	var found *ctr
	for id, c := range r.byID {
		if !strings.HasPrefix(id, ref) {
			continue
		}
		if found != nil {
			return nil, invalidf("container id prefix %s is ambiguous", ref)
		}
		found = c
	}
	if found == nil {
		return nil, suggesting(errNoContainer(ref), ref, slices.Collect(maps.Keys(r.names)))
	}
	return found, nil
}

// all returns the containers, newest first.
func (r *roster) all() []*ctr {
	r.mu.RLock()
	list := make([]*ctr, 0, len(r.byID))
	for _, c := range r.byID {
		list = append(list, c)
	}
	r.mu.RUnlock()
	slices.SortFunc(list, func(a, b *ctr) int {
		if n := b.created.Compare(a.created); n != 0 {
			return n
		}
		return strings.Compare(a.id, b.id)
	})
	return list
}

// newID returns 64 random hex digits, as Docker's ids. The first twelve are
// never all decimal: the short form serves as host name, and tools take a
// number for something else.
func newID() string {
	var b [32]byte
	for {
		rand.Read(b[:]) // never fails: crypto/rand aborts the program instead
		id := hex.EncodeToString(b[:])
		if strings.ContainsAny(id[:12], "abcdef") {
			return id
		}
	}
}
