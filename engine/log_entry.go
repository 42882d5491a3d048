package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// logEntry is one line of a json-file log.
type logEntry struct {
	text   []byte
	stream LogStream
	at     time.Time
	attrs  []byte // a JSON object, nil for none
}

// errBadEntry is a line that is no log entry; a crash can leave one.
var errBadEntry = errors.New("not a log entry")

var (
	entryStart  = []byte(`{"log":"`)
	entryStream = []byte(`","stream":"`)
	entryTime   = []byte(`","time":"`)
	entryEnd    = []byte(`"}`)
)

// decodeEntry reads a line without its newline. scratch is reused for the
// text. The keeper's own shape is cut apart directly, which is some ten times
// as fast as encoding/json; anything else goes there.
func decodeEntry(line, scratch []byte) (logEntry, error) {
	if !bytes.HasPrefix(line, entryStart) || !bytes.HasSuffix(line, entryEnd) {
		return decodeEntrySlowly(line)
	}
	body := line[len(entryStart) : len(line)-len(entryEnd)]
	// A quote inside the text is always escaped, so neither separator can be
	// part of it.
	i := bytes.LastIndex(body, entryStream)
	if i < 0 {
		return decodeEntrySlowly(line)
	}
	stream, stamp, ok := bytes.Cut(body[i+len(entryStream):], entryTime)
	if !ok { // it has attributes
		return decodeEntrySlowly(line)
	}
	text, ok := unescape(body[:i], scratch[:0])
	if !ok {
		return decodeEntrySlowly(line)
	}
	e, err := newEntry(text, string(stream), string(stamp))
	if err != nil { // what looked like the end was inside the attributes
		return decodeEntrySlowly(line)
	}
	return e, nil
}

func decodeEntrySlowly(line []byte) (logEntry, error) {
	var v struct {
		Log, Stream, Time string
		Attrs             json.RawMessage
	}
	if err := json.Unmarshal(line, &v); err != nil || v.Time == "" {
		return logEntry{}, errBadEntry
	}
	e, err := newEntry([]byte(v.Log), v.Stream, v.Time)
	e.attrs = v.Attrs
	return e, err
}

func newEntry(text []byte, stream, stamp string) (logEntry, error) {
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		return logEntry{}, errBadEntry
	}
	e := logEntry{text: text, stream: Stdout, at: at}
	if stream == "stderr" {
		e.stream = Stderr
	}
	return e, nil
}

// detailsText is how --details shows an entry's attributes, as Docker does.
func detailsText(attrs []byte) string {
	var m map[string]string
	if len(attrs) == 0 || json.Unmarshal(attrs, &m) != nil {
		return ""
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, url.QueryEscape(k)+"="+url.QueryEscape(m[k]))
	}
	return strings.Join(parts, ",")
}

// unescape appends the meaning of the inside of a JSON string to out.
func unescape(s, out []byte) ([]byte, bool) {
	for len(s) > 0 {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(out, s...), true
		}
		out = append(out, s[:i]...)
		s = s[i+1:]
		if len(s) == 0 {
			return nil, false
		}
		if s[0] == 'u' {
			r, n, ok := unescapeRune(s)
			if !ok {
				return nil, false
			}
			out, s = utf8.AppendRune(out, r), s[n:]
			continue
		}
		j := bytes.IndexByte([]byte(`"\/bfnrt`), s[0])
		if j < 0 {
			return nil, false
		}
		out, s = append(out, "\"\\/\b\f\n\r\t"[j]), s[1:]
	}
	return out, true
}

// unescapeRune reads uXXXX, and uXXXX\uXXXX for a surrogate pair.
func unescapeRune(s []byte) (r rune, n int, ok bool) {
	unit := func(s []byte) (rune, bool) {
		if len(s) < 5 || s[0] != 'u' {
			return 0, false
		}
		v, err := strconv.ParseUint(string(s[1:5]), 16, 16)
		return rune(v), err == nil
	}
	hi, ok := unit(s)
	if !ok || !utf16.IsSurrogate(hi) {
		return hi, 5, ok
	}
	if len(s) > 6 && s[5] == '\\' {
		if lo, ok := unit(s[6:]); ok {
			if r := utf16.DecodeRune(hi, lo); r != utf8.RuneError {
				return r, 11, true
			}
		}
	}
	return utf8.RuneError, 5, true
}
