// Package progress shows the progress an engine reports while it pulls, loads
// or imports: bars that move on a terminal, plain lines elsewhere.
package progress

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
)

// Display says where progress is shown.
type Display struct {
	Out io.Writer
	// Size returns the terminal's size in characters, asked before each
	// update; nil when Out is no terminal.
	Size func() (height, width uint)
	// now is the clock; nil is the system's.
	now func() time.Time
}

// Error is an error the engine reported in the middle of its answer.
type Error struct {
	Message string
	// Hint is what to do about it; may be empty.
	Hint string
}

func (e *Error) Error() string { return e.Message }

// message is a record of the engine's answer.
type message struct {
	jsonstream.Message
	// ErrorText is how engines before API 1.4 spell an error.
	ErrorText string `json:"error"`
	Detail    *struct {
		Message string `json:"message"`
		Hint    string `json:"hint"`
	} `json:"errorDetail"`
}

// Show prints the records of r until it ends. The last status without an id,
// such as the name or id of what was made, is returned.
func (d Display) Show(r io.Reader) (last string, err error) {
	p := &painter{Display: d, out: bufio.NewWriter(d.Out), rows: map[string]int{}, said: map[string]string{}, pace: map[string]pace{}}
	dec := json.NewDecoder(r)
	for {
		var m message
		if err := dec.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return p.last, errors.Join(err, p.out.Flush())
		}
		if failure := m.failure(); failure != nil {
			return p.last, errors.Join(failure, p.out.Flush())
		}
		p.paint(&m)
		if dec.Buffered() != nil && pending(dec) {
			continue // one flush for what came together
		}
		if err := p.out.Flush(); err != nil {
			return p.last, fmt.Errorf("write progress: %w", err)
		}
	}
}

// pending tells whether a whole further record may be buffered already.
func pending(dec *json.Decoder) bool {
	r, ok := dec.Buffered().(interface{ Len() int })
	return ok && r.Len() > 2
}

func (m *message) failure() error {
	switch {
	case m.Detail != nil:
		return &Error{Message: m.Detail.Message, Hint: m.Detail.Hint}
	case m.ErrorText != "":
		return &Error{Message: m.ErrorText}
	}
	return nil
}

// painter keeps what is on the screen.
type painter struct {
	Display
	out *bufio.Writer
	// rows is the line of each id, counted from the first one painted; total
	// is how many there are.
	rows  map[string]int
	total int
	// said is the last status of each id, for plain lines.
	said map[string]string
	last string
	// pace is since when, and from where, the bytes of each id count.
	pace map[string]pace
}

// pace is where a count of bytes was at a time.
type pace struct {
	status  string
	begin   time.Time
	current int64
}

// ratesAfter is how long bytes are counted before their rate is shown.
const ratesAfter = 500 * time.Millisecond

// rate is how fast an id's bytes come, " 12.3MB/s", or "".
func (p *painter) rate(m *message) string {
	if m.Progress.Current <= 0 || m.Progress.Units != "" {
		return ""
	}
	now := time.Now
	if p.now != nil {
		now = p.now
	}
	begun, ok := p.pace[m.ID]
	if !ok || begun.status != m.Status || m.Progress.Current < begun.current {
		p.pace[m.ID] = pace{m.Status, now(), m.Progress.Current}
		return ""
	}
	took := now().Sub(begun.begin)
	if took < ratesAfter {
		return ""
	}
	return "  " + units.HumanSizeWithPrecision(float64(m.Progress.Current-begun.current)/took.Seconds(), 3) + "/s"
}

func (p *painter) paint(m *message) {
	switch {
	case m.Stream != "":
		p.stream(m.Stream)
	case p.Size == nil:
		p.plain(m)
	case m.ID == "":
		p.last = m.Status
		fmt.Fprintf(p.out, "%s\r\n", m.Status)
		p.total++
	default:
		p.row(m)
	}
}

// stream prints text that brings its own line ends.
func (p *painter) stream(text string) {
	p.out.WriteString(text)
	p.total += strings.Count(text, "\n")
	p.last = strings.TrimSpace(text)
}

// plain prints a line, once per status: byte counts are for terminals.
func (p *painter) plain(m *message) {
	if m.Progress != nil && (m.Progress.Current > 0 || m.Progress.Total > 0) {
		return
	}
	if m.ID == "" {
		p.last = m.Status
		fmt.Fprintln(p.out, m.Status)
		return
	}
	if p.said[m.ID] == m.Status {
		return
	}
	p.said[m.ID] = m.Status
	fmt.Fprintf(p.out, "%s: %s\n", m.ID, m.Status)
}

// row prints an id's line anew, in its place.
func (p *painter) row(m *message) {
	height, width := p.Size()
	text := m.ID + ": " + m.Status
	if m.Progress != nil {
		rate := p.rate(m)
		if bar := Bar(m.Progress, int(width)-len(text)-1-len(rate)); bar != "" {
			text += " " + bar + rate
		}
	}
	if r := []rune(text); width > 0 && len(r) > int(width) {
		text = string(r[:width])
	}
	row, known := p.rows[m.ID]
	if !known {
		p.rows[m.ID] = p.total
		p.total++
		fmt.Fprintf(p.out, "%s\r\n", text)
		return
	}
	up := p.total - row
	if height > 0 && up >= int(height) {
		return // scrolled out of sight
	}
	fmt.Fprintf(p.out, "\x1b[%dA\r\x1b[2K%s\x1b[%dB\r", up, text, up)
}

// barWidth is the length of a whole bar without its figures.
const barWidth = 50

// Bar draws progress in at most width characters: a bar with figures, the
// figures alone where a bar has no place or the total is not known, nothing
// where nothing is known.
func Bar(pr *jsonstream.Progress, width int) string {
	if pr.Current <= 0 && pr.Total <= 0 {
		return ""
	}
	figures := amount(pr.Current, pr.Units)
	if pr.Total <= 0 || pr.Current > pr.Total {
		return figures
	}
	figures += "/" + amount(pr.Total, pr.Units)
	n := min(barWidth, width-len(figures)-4)
	if n < 5 {
		return figures
	}
	full := int(float64(n) * float64(pr.Current) / float64(pr.Total))
	bar := strings.Repeat("=", full)
	if full < n {
		bar += ">" + strings.Repeat(" ", n-full-1)
	}
	if pr.HideCounts {
		return "[" + bar + "]"
	}
	return "[" + bar + "]  " + figures
}

func amount(n int64, unit string) string {
	if unit != "" {
		return strconv.FormatInt(n, 10) + " " + unit
	}
	return units.HumanSizeWithPrecision(float64(n), 4)
}
