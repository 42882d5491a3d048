package terminal

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestParseKeys(t *testing.T) {
	for in, want := range map[string]string{
		"ctrl-p,ctrl-q": "\x10\x11",
		"a":             "a",
		"ctrl-@,x":      "\x00x",
		"ctrl-[,ctrl-_": "\x1b\x1f",
		`ctrl-\`:        "\x1c",
		"CTRL-A":        "\x01",
	} {
		got, err := ParseKeys(in)
		if err != nil || string(got) != want {
			t.Errorf("ParseKeys(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "ctrl-", "ctrl-1", "ab", "ctrl-p,,q", "ctrl-pq"} {
		if got, err := ParseKeys(in); err == nil {
			t.Errorf("ParseKeys(%q) = %q, want an error", in, got)
		}
	}
}

func TestKeyReader(t *testing.T) {
	for _, c := range []struct {
		keys, in, out string
		err           error
	}{
		{"pq", "hello", "hello", nil},
		{"pq", "hepqllo", "he", ErrDetached},
		{"pq", "heppqllo", "hep", ErrDetached},
		{"pq", "pxp", "pxp", nil},
		{"pq", "p", "p", nil},
		{"q", "abqc", "ab", ErrDetached},
		{"aab", "aaab", "a", ErrDetached},
		{"aab", "aaaaa", "aaaaa", nil},
		{"abac", "ababac", "ab", ErrDetached},
		{"abac", "abaabac", "aba", ErrDetached},
		{"pq", "", "", nil},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r },
			"bytes": iotest.OneByteReader,
			"eof":   iotest.DataErrReader,
		} {
			got, err := io.ReadAll(NewKeyReader(wrap(bytes.NewReader([]byte(c.in))), []byte(c.keys)))
			if string(got) != c.out || !errors.Is(err, c.err) {
				t.Errorf("keys %q, input %q (%s): %q, %v, want %q, %v", c.keys, c.in, name, got, err, c.out, c.err)
			}
		}
	}
}
