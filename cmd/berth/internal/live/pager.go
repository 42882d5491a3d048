package live

import "fmt"

// pager shows a text that may be longer than the screen and may still grow: a
// log, an explanation, the help.
type pager struct {
	title string
	lines []string
	// top is the first line shown, side the first character of each.
	top, side int
	// follow keeps the last line in sight as lines come.
	follow bool
	// ended says why no more comes; empty while more may.
	ended string
}

// pagerKept bounds how many lines are kept of a log.
const pagerKept = 5000

// add appends a line.
func (p *pager) add(text string) {
	p.lines = append(p.lines, printable(text))
	if drop := len(p.lines) - pagerKept; drop > 0 {
		p.lines = append(p.lines[:0:0], p.lines[drop:]...)
		p.top = max(0, p.top-drop)
	}
}

// key moves the text; leave tells that the user is done with it.
func (p *pager) key(k key, height int) (leave bool) {
	page := max(1, height-2)
	last := max(0, len(p.lines)-page)
	if p.follow {
		p.top = last
	}
	switch k {
	case 'q', 'l', 'h', 'e', '?', keyEscape, keyEnter:
		return true
	case keyUp, 'k':
		p.top--
	case keyDown, 'j':
		p.top++
	case keyPageUp, 'b':
		p.top -= page
	case keyPageDown, ' ':
		p.top += page
	case keyHome, 'g':
		p.top = 0
	case keyEnd, 'G':
		p.top = last
	case keyLeft:
		p.side = max(0, p.side-8)
	case keyRight:
		p.side += 8
	}
	p.top = max(0, min(p.top, last))
	p.follow = p.top == last
	return false
}

func (p *pager) draw(height int) []line {
	page := max(1, height-2)
	last := max(0, len(p.lines)-page)
	if p.follow || p.top > last {
		p.top = last
	}
	out := []line{{p.title, reverse}}
	for i := range page {
		text := ""
		if n := p.top + i; n < len(p.lines) {
			if r := []rune(p.lines[n]); len(r) > p.side {
				text = string(r[p.side:])
			}
		}
		out = append(out, line{text, ""})
	}
	state := p.ended
	if state == "" && p.follow {
		state = "following"
	}
	foot := fmt.Sprintf(" q back  arrows, PgUp, PgDn move  %d-%d of %d  %s", min(p.top+1, len(p.lines)), min(p.top+page, len(p.lines)), len(p.lines), state)
	return append(out, line{foot, bold})
}
