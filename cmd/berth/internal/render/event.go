package render

import (
	"io"
	"sort"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
)

// eventTime is RFC 3339 with all nine digits of the nanoseconds.
const eventTime = "2006-01-02T15:04:05.000000000Z07:00"

// Event prints an event as a line: time, type, action, id, attributes.
func Event(w io.Writer, m *events.Message) error {
	var b strings.Builder
	t := time.Unix(m.Time, 0)
	if m.TimeNano != 0 {
		t = time.Unix(0, m.TimeNano)
	}
	b.WriteString(t.Format(eventTime))
	for _, word := range []string{string(m.Type), string(m.Action), m.Actor.ID} {
		b.WriteString(" " + word)
	}
	if len(m.Actor.Attributes) > 0 {
		pairs := make([]string, 0, len(m.Actor.Attributes))
		for k, v := range m.Actor.Attributes {
			pairs = append(pairs, k+"="+v)
		}
		sort.Strings(pairs)
		b.WriteString(" (" + strings.Join(pairs, ", ") + ")")
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}
