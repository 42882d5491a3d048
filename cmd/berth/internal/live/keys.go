package live

import "unicode/utf8"

// key is what was typed: a character, or one of those below.
type key rune

const (
	keyUp key = -1 - iota
	keyDown
	keyPageUp
	keyPageDown
	keyHome
	keyEnd
	keyLeft
	keyRight
	keyEscape
	keyUnknown
)

const (
	keyEnter     key = '\r'
	keyBackspace key = 0x7f
	keyInterrupt key = 3 // ctrl-c; in raw mode it comes as a character
)

// sequences are what terminals send for keys without a character, after ESC,
// in their usual and their application mode.
var sequences = map[string]key{
	"[A": keyUp, "[B": keyDown, "[C": keyRight, "[D": keyLeft, "OA": keyUp, "OB": keyDown, "OC": keyRight, "OD": keyLeft,
	"[5~": keyPageUp, "[6~": keyPageDown, "[H": keyHome, "[F": keyEnd, "OH": keyHome, "OF": keyEnd,
	"[1~": keyHome, "[4~": keyEnd, "[7~": keyHome, "[8~": keyEnd,
}

// decode takes apart what one read has brought. A sequence comes in one piece:
// an ESC alone at the end is the key of that name.
func decode(typed []byte) []key {
	var keys []key
	for len(typed) > 0 {
		if typed[0] != 0x1b {
			r, n := utf8.DecodeRune(typed)
			keys = append(keys, key(r))
			typed = typed[n:]
			continue
		}
		if len(typed) == 1 || typed[1] != '[' && typed[1] != 'O' {
			keys = append(keys, keyEscape)
			typed = typed[1:]
			continue
		}
		end := 2
		for end < len(typed) && (typed[end] < 0x40 || typed[end] > 0x7e) {
			end++
		}
		end = min(end+1, len(typed))
		k, ok := sequences[string(typed[1:end])]
		if !ok {
			k = keyUnknown
		}
		keys = append(keys, k)
		typed = typed[end:]
	}
	return keys
}
