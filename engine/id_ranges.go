package engine

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/berth-containers/berth/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// idMapping is what a container with a user namespace of its own has of the
// host's ids: those from UID (of groups from GID) on, Size of each, are 0 and up
// in the container.
type idMapping struct{ UID, GID, Size uint32 }

func (m *idMapping) uids() []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{HostID: m.UID, Size: m.Size}}
}

func (m *idMapping) gids() []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{HostID: m.GID, Size: m.Size}}
}

// idRange is a number of ids from first on.
type idRange struct{ first, count uint64 }

func (r idRange) end() uint64 { return r.first + r.count }

// builtinIDs are what containers get where neither the configuration nor
// /etc/subuid says: the ids above those that systemd gives its own containers
// (systemd.io/UIDS-GIDS), up to the largest that is no negative number to anybody.
var builtinIDs = idRange{0x70000000, 0x10000000}

// subordinateOwner is whose lines in /etc/subuid and /etc/subgid are the
// engine's.
const subordinateOwner = "berth"

// idRanges gives each container that wants some ids of its own. What is given
// away stands in the containers' records.
type idRanges struct {
	// configured is FIRST:COUNT, empty for the files' or the built-in range.
	configured string
	// subuid and subgid are the files, for tests.
	subuid, subgid string

	mu   sync.Mutex
	used map[string]idMapping // by container
}

// assign takes size ids of each kind for a container.
func (r *idRanges) assign(id string, size uint32) (*idMapping, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	uids, err := r.available(cmp.Or(r.subuid, "/etc/subuid"))
	if err != nil {
		return nil, err
	}
	gids, err := r.available(cmp.Or(r.subgid, "/etc/subgid"))
	if err != nil {
		return nil, err
	}
	m := idMapping{Size: size}
	var usedUIDs, usedGIDs []idRange
	for _, o := range r.used {
		usedUIDs = append(usedUIDs, idRange{uint64(o.UID), uint64(o.Size)})
		usedGIDs = append(usedGIDs, idRange{uint64(o.GID), uint64(o.Size)})
	}
	var okUID, okGID bool
	m.UID, okUID = firstFree(uids, usedUIDs, size)
	m.GID, okGID = firstFree(gids, usedGIDs, size)
	if !okUID || !okGID {
		return nil, errdefs.WithHint(fmt.Errorf("no %d ids are free for a user namespace: %w", size, errdefs.ErrUnavailable),
			"remove containers, ask for fewer by --userns=auto:size=N, or give the engine more: lines of "+subordinateOwner+
				" in /etc/subuid and /etc/subgid, or userns-ids in berthd.toml")
	}
	r.adoptLocked(id, m)
	return &m, nil
}

// adopt notes what a container's record says.
func (r *idRanges) adopt(id string, m *idMapping) {
	if m == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.adoptLocked(id, *m)
}

func (r *idRanges) adoptLocked(id string, m idMapping) {
	if r.used == nil {
		r.used = map[string]idMapping{}
	}
	r.used[id] = m
}

func (r *idRanges) release(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, id)
}

// available are the ranges of one kind of ids to give away: the configured one,
// else the engine's lines in the file, else the built-in range without what the
// file gives to others.
func (r *idRanges) available(file string) ([]idRange, error) {
	if r.configured != "" {
		c, err := parseIDRange(r.configured)
		return []idRange{c}, err
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	own, others, err := subordinate(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(own) > 0 {
		return own, nil
	}
	return without(builtinIDs, others), nil
}

// subordinate reads lines NAME:FIRST:COUNT (subuid(5)).
func subordinate(text []byte) (own, others []idRange, err error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, _ := strings.Cut(line, ":")
		r, err := parseIDRange(rest)
		if err != nil {
			return nil, nil, err
		}
		if name == subordinateOwner {
			own = append(own, r)
		} else {
			others = append(others, r)
		}
	}
	return own, others, lines.Err()
}

// parseIDRange reads FIRST:COUNT. The host's root is nobody's to give away.
func parseIDRange(text string) (idRange, error) {
	a, b, _ := strings.Cut(text, ":")
	first, err1 := strconv.ParseUint(a, 10, 32)
	count, err2 := strconv.ParseUint(b, 10, 32)
	if err1 != nil || err2 != nil || first == 0 || count == 0 || first+count > 1<<32-1 {
		return idRange{}, invalidf("id range %q: want FIRST:COUNT", text)
	}
	return idRange{first, count}, nil
}

// without is what is left of a range without the others.
func without(r idRange, others []idRange) []idRange {
	var left []idRange
	at := r.first
	for _, o := range sorted(others) {
		if o.end() <= at || o.first >= r.end() {
			continue
		}
		if o.first > at {
			left = append(left, idRange{at, o.first - at})
		}
		at = o.end()
	}
	if at < r.end() {
		left = append(left, idRange{at, r.end() - at})
	}
	return left
}

// firstFree finds size ids in a row.
func firstFree(ranges, used []idRange, size uint32) (uint32, bool) {
	for _, r := range ranges {
		for _, free := range without(r, used) {
			if free.count >= uint64(size) {
				return uint32(free.first), true
			}
		}
	}
	return 0, false
}

func sorted(list []idRange) []idRange {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b idRange) int { return cmp.Compare(a.first, b.first) })
	return list
}
