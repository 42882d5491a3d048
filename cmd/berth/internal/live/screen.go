package live

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The escape sequences in use, all of them ECMA-48's and the VT100's, which
// every terminal knows.
const (
	enter     = "\x1b[?1049h\x1b[?25l\x1b[?7l" // the other screen, no cursor, no wrapping
	leave     = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home      = "\x1b[H"
	clearLine = "\x1b[K"
	clearRest = "\x1b[J"

	plain   = "\x1b[0m"
	bold    = "\x1b[1m"
	reverse = "\x1b[7m"
	red     = "\x1b[31m"
	green   = "\x1b[32m"
	yellow  = "\x1b[33m"
)

// line is a line of the screen: its text and how all of it looks.
type line struct {
	text  string
	style string
}

// paint is what makes the screen show the lines, each over the one that was
// there, so that nothing flickers.
func paint(lines []line, width, height int, colours bool) string {
	var b strings.Builder
	b.WriteString(home)
	for i := range min(len(lines), height) {
		l := lines[i]
		if i > 0 {
			b.WriteString("\r\n")
		}
		style := l.style
		if !colours && style != bold && style != reverse {
			style = ""
		}
		b.WriteString(style + cut(l.text, width))
		if style != "" {
			b.WriteString(plain)
		}
		if utf8.RuneCountInString(l.text) < width { // else the cursor is still on the last character
			b.WriteString(clearLine)
		}
	}
	if len(lines) < height {
		b.WriteString("\r\n" + clearRest)
	}
	return b.String()
}

// cut shortens a text to so many characters.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:max(width, 0)])
}

// pad makes a text exactly so wide.
func pad(text string, width int, left bool) string {
	text = cut(text, width)
	blank := strings.Repeat(" ", width-utf8.RuneCountInString(text))
	if left {
		return text + blank
	}
	return blank + text
}

// printable makes a text safe to show: what a container has printed or is
// called must not move the cursor, change colours or do worse to the terminal.
func printable(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '\x1b':
			n = sequence(text[i:])
		case r == '\t':
			b.WriteString(strings.Repeat(" ", 8-utf8.RuneCountInString(b.String())%8))
		case r == utf8.RuneError && n <= 1, !unicode.IsPrint(r):
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

// sequence is the length of the escape sequence that text begins with: CSI
// (ESC [ … final), OSC and the like (up to BEL or ESC \), or two characters.
func sequence(text string) int {
	if len(text) < 2 {
		return 1
	}
	switch text[1] {
	case '[':
		for i := 2; i < len(text); i++ {
			if text[i] >= 0x40 && text[i] <= 0x7e {
				return i + 1
			}
		}
		return len(text)
	case ']', 'P', '_', '^', 'X':
		for i := 2; i < len(text); i++ {
			if text[i] == 7 {
				return i + 1
			}
			if text[i] == 0x1b && i+1 < len(text) && text[i+1] == '\\' {
				return i + 2
			}
		}
		return len(text)
	}
	return 2
}
