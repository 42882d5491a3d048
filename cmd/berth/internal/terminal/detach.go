package terminal

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// DefaultKeys is the sequence that detaches when nothing else is said.
const DefaultKeys = "ctrl-p,ctrl-q"

// ErrDetached is what a [KeyReader] ends with when the sequence was typed.
var ErrDetached = errors.New("read escape sequence")

// ParseKeys reads a sequence of keys separated by commas: a character, or
// ctrl- and one of a-z, @, [, \, ], ^, _.
func ParseKeys(s string) ([]byte, error) {
	var keys []byte
	for _, key := range strings.Split(s, ",") {
		name, isCtrl := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		switch {
		case isCtrl && len(name) == 1 && name[0] >= 'a' && name[0] <= 'z':
			keys = append(keys, name[0]-'a'+1)
		case isCtrl && name == "@":
			keys = append(keys, 0)
		case isCtrl && len(name) == 1 && name[0] >= '[' && name[0] <= '_':
			keys = append(keys, name[0]-'['+27)
		case len(key) == 1:
			keys = append(keys, key[0])
		default:
			return nil, fmt.Errorf("unknown key %q in detach keys %q: want characters or ctrl-<key>, separated by commas", key, s)
		}
	}
	return keys, nil
}

// KeyReader passes input on until the keys are typed one after the other. The
// keys of an unfinished sequence are held back and passed on as soon as it
// turns out to be none.
type KeyReader struct {
	r    io.Reader
	keys []byte
	// matched is how many of keys have been typed.
	matched int
	// ready is what may be passed on.
	ready []byte
	err   error
	buf   [4096]byte
}

// NewKeyReader returns a reader of r that ends with ErrDetached when keys, of
// which there must be at least one, were typed.
func NewKeyReader(r io.Reader, keys []byte) *KeyReader {
	return &KeyReader{r: r, keys: keys}
}

// Read implements io.Reader.
func (k *KeyReader) Read(p []byte) (int, error) {
	for len(k.ready) == 0 {
		if k.err != nil {
			return 0, k.err
		}
		n, err := k.r.Read(k.buf[:])
		k.err = err
		k.feed(k.buf[:n])
		if err != nil && k.err == err {
			k.ready = append(k.ready, k.keys[:k.matched]...)
			k.matched = 0
		}
	}
	n := copy(p, k.ready)
	k.ready = k.ready[n:]
	return n, nil
}

// feed takes typed bytes. After a mismatch the longest end of what was typed
// that can still begin the sequence is kept, as in Knuth, Morris and Pratt's search.
func (k *KeyReader) feed(typed []byte) {
	k.ready = k.ready[:0]
	for _, b := range typed {
		for k.matched > 0 && b != k.keys[k.matched] {
			keep := k.border(k.matched)
			k.ready = append(k.ready, k.keys[:k.matched-keep]...)
			k.matched = keep
		}
		if b != k.keys[k.matched] {
			k.ready = append(k.ready, b)
			continue
		}
		if k.matched++; k.matched == len(k.keys) {
			k.err = ErrDetached
			return
		}
	}
}

// border is the length of the longest proper prefix of keys[:n] that is also
// its suffix.
func (k *KeyReader) border(n int) int {
	for l := n - 1; l > 0; l-- {
		if string(k.keys[:l]) == string(k.keys[n-l:n]) {
			return l
		}
	}
	return 0
}
