package typist

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/hinshun/vt10x"
)

// screen is a terminal's screen as its user sees it: what was printed, drawn by
// an emulator. Its fields are guarded by the typist's lock.
type screen struct {
	vt vt10x.Terminal
	// rest is a character of which not all bytes have come.
	rest []byte
}

func newScreen(rows, cols uint16) *screen {
	return &screen{vt: vt10x.New(vt10x.WithSize(int(cols), int(rows)))}
}

func (s *screen) write(p []byte) {
	p = append(s.rest, p...)
	whole := len(p)
	for i := max(0, len(p)-utf8.UTFMax+1); i < len(p); i++ {
		if utf8.RuneStart(p[i]) && !utf8.FullRune(p[i:]) {
			whole = i
			break
		}
	}
	_, _ = s.vt.Write(p[:whole]) // an emulator takes all
	s.rest = append([]byte(nil), p[whole:]...)
}

// lines are the screen's lines without the blanks at their ends.
func (s *screen) lines() []string {
	all := strings.Split(strings.TrimSuffix(s.vt.String(), "\n"), "\n")
	for i := range all {
		all[i] = strings.TrimRight(all[i], " \x00")
	}
	return all
}

// Screen is what the screen shows now, a line each.
func (p *Typist) Screen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.screen.lines()
}

// Shows waits until the screen as a whole matches a pattern; ^ and $ are the
// ends of its lines.
func (p *Typist) Shows(pattern string) {
	p.t.Helper()
	p.await(regexp.MustCompile("(?m)"+pattern), true)
}

// Hides waits until the screen matches it no more.
func (p *Typist) Hides(pattern string) {
	p.t.Helper()
	p.await(regexp.MustCompile("(?m)"+pattern), false)
}

func (p *Typist) await(want *regexp.Regexp, there bool) {
	p.t.Helper()
	var text string
	if !p.until(func() bool {
		text = strings.Join(p.screen.lines(), "\n")
		return want.MatchString(text) == there
	}) {
		p.t.Fatalf("the screen does not become %s (%t):\n%s", want, there, text)
	}
}
