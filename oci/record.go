package oci

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/kernel/resctrl"
	"github.com/berth-containers/berth/kernel/systemd"
)

// record is what state.json holds. It is written and read by hand, twice in
// each start: see [jsonReader].
type record struct {
	ID      string       `json:"id"`
	Bundle  string       `json:"bundle"`
	Pid     int          `json:"pid"`
	Started uint64       `json:"startTime"` // of the process, clock ticks since boot; tells a reused pid
	Created time.Time    `json:"created"`
	Cgroup  cgroup.State `json:"cgroup"`
	// Owned: the cgroup carries the container's name, so that one which does not is
	// another.
	Owned bool `json:"owned,omitempty"`
	// Scope is the cgroup's unit of systemd, nil without.
	Scope *systemd.Scope `json:"scope,omitempty"`
	// Hooks: the specification has some for what is still to come.
	Hooks bool `json:"hooks,omitempty"`
	// Creating: hooks of its creation run.
	Creating bool `json:"creating,omitempty"`
	// Resctrl is what was made for linux.intelRdt.
	Resctrl *resctrl.Group `json:"resctrl,omitempty"`
}

// appendTo appends the record as JSON, as encoding/json would.
func (rec *record) appendTo(b []byte) []byte {
	b = appendString(append(b, `{"id":`...), rec.ID)
	b = appendString(append(b, `,"bundle":`...), rec.Bundle)
	b = strconv.AppendInt(append(b, `,"pid":`...), int64(rec.Pid), 10)
	b = strconv.AppendUint(append(b, `,"startTime":`...), rec.Started, 10)
	b = rec.Created.AppendFormat(append(b, `,"created":"`...), time.RFC3339Nano)
	b = appendString(append(b, `","cgroup":{"path":`...), rec.Cgroup.Path)
	b = append(b, `,"dirs":`...)
	separator := byte('{')
	for _, name := range slices.Sorted(maps.Keys(rec.Cgroup.Dirs)) {
		b = appendString(append(b, separator), name)
		b = appendString(append(b, ':'), rec.Cgroup.Dirs[name])
		separator = ','
	}
	if separator == '{' {
		b = append(b, separator)
	}
	b = append(b, "}}"...)
	if rec.Owned {
		b = append(b, `,"owned":true`...)
	}
	if rec.Scope != nil {
		scope, _ := json.Marshal(rec.Scope) // strings cannot fail
		b = append(append(b, `,"scope":`...), scope...)
	}
	if rec.Hooks {
		b = append(b, `,"hooks":true`...)
	}
	if rec.Creating {
		b = append(b, `,"creating":true`...)
	}
	if rec.Resctrl != nil {
		group, _ := json.Marshal(rec.Resctrl) // strings and a flag cannot fail
		b = append(append(b, `,"resctrl":`...), group...)
	}
	return append(b, '}')
}

// appendString appends a string as JSON.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string cannot fail
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// readRecord reads a record, by hand when it is one of ours.
func readRecord(text []byte) (rec record, err error) {
	r := &recordReader{jsonReader{text: string(text)}}
	if rec = r.record(); r.done() {
		return rec, nil
	}
	rec = record{}
	err = json.Unmarshal(text, &rec)
	return rec, err
}

type recordReader struct{ jsonReader }

func (r *recordReader) record() (rec record) {
	r.object(func(name string) uint64 {
		switch name {
		case "id":
			rec.ID = r.str()
			return 1 << 0
		case "bundle":
			rec.Bundle = r.str()
			return 1 << 1
		case "pid":
			rec.Pid = int(r.signed())
			return 1 << 2
		case "startTime":
			rec.Started = r.unsigned(1<<64 - 1)
			return 1 << 3
		case "created":
			rec.Created = r.time()
			return 1 << 4
		case "cgroup":
			rec.Cgroup = r.cgroup()
			return 1 << 5
		case "hooks":
			rec.Hooks = r.boolean()
			return 1 << 6
		case "creating":
			rec.Creating = r.boolean()
			return 1 << 7
		case "owned":
			rec.Owned = r.boolean()
			return 1 << 10
		case "scope":
			rec.Scope = r.scope()
			return 1 << 8
		case "resctrl":
			if json.Unmarshal(r.raw(), &rec.Resctrl) != nil {
				r.giveUp()
			}
			return 1 << 9
		}
		return 0
	})
	return rec
}

func (r *recordReader) time() time.Time {
	t, err := time.Parse(time.RFC3339Nano, r.str())
	if err != nil {
		r.giveUp()
	}
	return t
}

func (r *recordReader) scope() *systemd.Scope {
	s := &systemd.Scope{}
	r.object(func(name string) uint64 {
		switch name {
		case "Slice":
			s.Slice = r.str()
			return 1 << 0
		case "Unit":
			s.Unit = r.str()
			return 1 << 1
		case "User":
			s.User = r.boolean()
			return 1 << 2
		}
		return 0
	})
	return s
}

func (r *recordReader) cgroup() (s cgroup.State) {
	r.object(func(name string) uint64 {
		switch name {
		case "path":
			s.Path = r.str()
			return 1 << 0
		case "dirs":
			s.Dirs = r.strMap()
			return 1 << 1
		}
		return 0
	})
	return s
}
