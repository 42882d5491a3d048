package oci

import (
	"encoding/json"
	"strings"
)

// jsonReader reads a JSON text from front to back. Package encoding/json
// prepares itself for each type it meets, which takes 0.4 ms for the few
// types of a container; this takes none. It only reads what it is sure to
// read as that package does, and gives up on the rest: errors, unknown and
// repeated names, fractions.
type jsonReader struct {
	text   string
	at     int
	gaveUp bool
}

// next skips white space and returns the next character, 0 at the end.
func (r *jsonReader) next() byte {
	for r.at < len(r.text) {
		c := r.text[r.at]
		if c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
		r.at++
	}
	return 0
}

// done tells whether all was read.
func (r *jsonReader) done() bool {
	r.next()
	return !r.gaveUp && r.at == len(r.text)
}

func (r *jsonReader) giveUp() {
	r.gaveUp = true
	r.at = len(r.text)
}

// take reads the character c, when it comes next.
func (r *jsonReader) take(c byte) bool {
	if r.next() != c {
		return false
	}
	r.at++
	return true
}

func (r *jsonReader) want(c byte) {
	if !r.take(c) {
		r.giveUp()
	}
}

// null reads a null, when one comes next.
func (r *jsonReader) null() bool {
	if r.next() != 'n' || !strings.HasPrefix(r.text[r.at:], "null") {
		return false
	}
	r.at += len("null")
	return true
}

// object reads an object, or a null, which it reports. member reads the value
// of one name; it returns the bit of that name, 0 for a name it does not know.
func (r *jsonReader) object(member func(name string) (bit uint64)) (present bool) {
	if r.null() {
		return false
	}
	r.want('{')
	var seen uint64
	for i := 0; !r.gaveUp && !r.take('}'); i++ {
		if i > 0 {
			r.want(',')
		}
		name := r.str()
		r.want(':')
		if r.gaveUp {
			break
		}
		bit := member(name)
		if bit == 0 || seen&bit != 0 {
			r.giveUp()
		}
		seen |= bit
	}
	return true
}

// array reads an array, or a null, which it reports.
func (r *jsonReader) array(element func()) (present bool) {
	if r.null() {
		return false
	}
	r.want('[')
	for i := 0; !r.gaveUp && !r.take(']'); i++ {
		if i > 0 {
			r.want(',')
		}
		element()
	}
	return true
}

// str reads a string, "" for a null.
func (r *jsonReader) str() string {
	if r.null() {
		return ""
	}
	start := r.at + 1
	r.want('"')
	for i := start; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case c == '"':
			r.at = i + 1
			return r.text[start:i]
		case c == '\\' || c < ' ' || c >= 0x80: // the rare ones
			return r.escaped(start - 1)
		}
	}
	r.giveUp()
	return ""
}

// escaped reads the string that begins with the quote at start.
func (r *jsonReader) escaped(start int) string {
	for i := start + 1; i < len(r.text); i++ {
		switch r.text[i] {
		case '\\':
			i++
		case '"':
			var s string
			if json.Unmarshal([]byte(r.text[start:i+1]), &s) != nil {
				r.giveUp()
				return ""
			}
			r.at = i + 1
			return s
		}
	}
	r.giveUp()
	return ""
}

// strs reads an array of strings.
func strs[T ~string](r *jsonReader) (list []T) {
	if r.array(func() { list = append(list, T(r.str())) }) && list == nil {
		list = []T{}
	}
	return list
}

// strMap reads an object whose values are strings.
func (r *jsonReader) strMap() (m map[string]string) {
	if r.null() {
		return nil
	}
	r.want('{')
	m = map[string]string{}
	for i := 0; !r.gaveUp && !r.take('}'); i++ {
		if i > 0 {
			r.want(',')
		}
		name := r.str()
		r.want(':')
		m[name] = r.str()
	}
	return m
}

// boolean reads true or false; a null is false.
func (r *jsonReader) boolean() bool {
	r.next()
	switch rest := r.text[r.at:]; {
	case strings.HasPrefix(rest, "true"):
		r.at += len("true")
		return true
	case strings.HasPrefix(rest, "false"):
		r.at += len("false")
	case !r.null():
		r.giveUp()
	}
	return false
}

// unsigned reads a whole number of at most max; a null is 0.
func (r *jsonReader) unsigned(max uint64) uint64 {
	if r.null() {
		return 0
	}
	r.next()
	start := r.at
	var v uint64
	for r.at < len(r.text) && '0' <= r.text[r.at] && r.text[r.at] <= '9' {
		d := uint64(r.text[r.at] - '0')
		if v > (max-d)/10 {
			r.giveUp()
			return 0
		}
		v = 10*v + d
		r.at++
	}
	leadingZero := r.at > start+1 && r.text[start] == '0'
	if r.at == start || leadingZero || r.at < len(r.text) && strings.IndexByte(".eE", r.text[r.at]) >= 0 {
		r.giveUp()
	}
	return v
}

// signed reads a whole number; a null is 0.
func (r *jsonReader) signed() int64 {
	const most = 1<<63 - 1
	if r.next() != '-' {
		return int64(r.unsigned(most))
	}
	r.at++
	if r.at == len(r.text) || r.text[r.at] < '0' || r.text[r.at] > '9' { // "-null", "- 1"
		r.giveUp()
		return 0
	}
	return -int64(r.unsigned(most))
}

// raw reads any value as its text. It checks no more than where the value ends.
func (r *jsonReader) raw() json.RawMessage {
	r.next()
	start := r.at
	for depth := 0; r.at < len(r.text); {
		switch r.text[r.at] {
		case '"':
			r.str()
			if depth == 0 {
				return json.RawMessage(r.text[start:r.at])
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // of what is around the value
				return json.RawMessage(r.text[start:r.at])
			}
			if depth--; depth == 0 {
				r.at++
				return json.RawMessage(r.text[start:r.at])
			}
		case ',':
			if depth == 0 {
				return json.RawMessage(r.text[start:r.at])
			}
		}
		r.at++
	}
	return json.RawMessage(r.text[start:])
}

// optional reads a value that may be null, which is nil.
func optional[T any](r *jsonReader, value func() T) *T {
	if r.null() {
		return nil
	}
	v := value()
	return &v
}

// list reads an array of values.
func list[T any](r *jsonReader, value func() T) (l []T) {
	if r.array(func() { l = append(l, value()) }) && l == nil {
		l = []T{}
	}
	return l
}
