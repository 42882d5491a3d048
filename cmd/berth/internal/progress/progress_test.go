package progress

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
)

const pull = `{"status":"Pulling from library/x","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaa"}
{"status":"Pulling fs layer","progressDetail":{},"id":"bbb"}
{"status":"Downloading","progressDetail":{"current":500,"total":1000},"id":"aaa"}
{"status":"Downloading","progressDetail":{"current":1000,"total":1000},"id":"aaa"}
{"status":"Pull complete","progressDetail":{},"id":"aaa"}
{"status":"Pull complete","progressDetail":{},"id":"bbb"}
{"status":"Pull complete","progressDetail":{},"id":"bbb"}
{"status":"Digest: sha256:0"}
{"status":"Status: Downloaded newer image for x"}
`

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	last, err := Display{Out: &out}.Show(strings.NewReader(pull))
	if err != nil {
		t.Fatal(err)
	}
	want := `latest: Pulling from library/x
aaa: Pulling fs layer
bbb: Pulling fs layer
aaa: Pull complete
bbb: Pull complete
Digest: sha256:0
Status: Downloaded newer image for x
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
	if last != "Status: Downloaded newer image for x" {
		t.Errorf("last status %q", last)
	}
}

// screen is as much of a terminal as the renderer uses.
type screen struct {
	lines [][]rune
	row   int
	col   int
}

func (s *screen) Write(p []byte) (int, error) {
	text := []rune(string(p))
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\r':
			s.col = 0
		case '\n':
			s.row++
		case 0x1b:
			n := 0
			for i += 2; text[i] >= '0' && text[i] <= '9'; i++ {
				n = n*10 + int(text[i]-'0')
			}
			switch text[i] {
			case 'A':
				s.row -= n
			case 'B':
				s.row += n
			case 'K':
				s.line(s.row)
				s.lines[s.row] = nil
			}
		default:
			s.line(s.row)
			l := s.lines[s.row]
			for len(l) <= s.col {
				l = append(l, ' ')
			}
			l[s.col] = c
			s.lines[s.row] = l
			s.col++
		}
	}
	return len(p), nil
}

func (s *screen) line(n int) {
	for len(s.lines) <= n {
		s.lines = append(s.lines, nil)
	}
}

func (s *screen) String() string {
	var b strings.Builder
	for _, l := range s.lines {
		b.WriteString(string(l) + "\n")
	}
	return b.String()
}

func TestTerminal(t *testing.T) {
	var s screen
	size := func() (uint, uint) { return 24, 60 }
	half := strings.Join(strings.SplitAfter(pull, "\n")[:4], "")
	if _, err := (Display{Out: &s, Size: size}).Show(strings.NewReader(half)); err != nil {
		t.Fatal(err)
	}
	want := `latest: Pulling from library/x
aaa: Downloading [===============>               ]  500B/1kB
bbb: Pulling fs layer
`
	if s.String() != want {
		t.Errorf("screen in the middle\n%s\nwant\n%s", s.String(), want)
	}
	s = screen{}
	if _, err := (Display{Out: &s, Size: size}).Show(strings.NewReader(pull)); err != nil {
		t.Fatal(err)
	}
	want = `latest: Pulling from library/x
aaa: Pull complete
bbb: Pull complete
Digest: sha256:0
Status: Downloaded newer image for x
`
	if s.String() != want {
		t.Errorf("screen at the end\n%s\nwant\n%s", s.String(), want)
	}
}

func TestScrolledOut(t *testing.T) {
	var s screen
	records := `{"status":"Waiting","id":"a"}{"status":"1"}{"status":"2"}{"status":"3"}{"status":"Done","id":"a"}`
	if _, err := (Display{Out: &s, Size: func() (uint, uint) { return 3, 80 }}).Show(strings.NewReader(records)); err != nil {
		t.Fatal(err)
	}
	if got := s.String(); got != "a: Waiting\n1\n2\n3\n" {
		t.Errorf("screen\n%s", got)
	}
}

func TestFailure(t *testing.T) {
	for _, c := range []struct{ records, message, hint string }{
		{`{"status":"x"}{"errorDetail":{"code":404,"message":"no such image","hint":"look"},"error":"no such image"}`, "no such image", "look"},
		{`{"error":"old"}`, "old", ""},
	} {
		var out bytes.Buffer
		_, err := Display{Out: &out}.Show(strings.NewReader(c.records))
		var e *Error
		if !errors.As(err, &e) || e.Message != c.message || e.Hint != c.hint {
			t.Errorf("%s: %#v", c.records, err)
		}
	}
	var out bytes.Buffer
	if _, err := (Display{Out: &out}).Show(strings.NewReader(`{"status":`)); err == nil {
		t.Error("half a record is taken for the end")
	}
}

func TestBar(t *testing.T) {
	for _, c := range []struct {
		current, total int64
		width          int
		want           string
	}{
		{0, 0, 80, ""},
		{500, 0, 80, "500B"},
		{500, 400, 80, "500B"},
		{5, 10, 30, "[==========>         ]  5B/10B"},
		{10, 10, 30, "[===================]  10B/10B"},
		{5, 10, 8, "5B/10B"},
	} {
		got := Bar(&jsonstream.Progress{Current: c.current, Total: c.total}, c.width)
		if len(got) > c.width {
			t.Errorf("%+v: %q is %d wide", c, got, len(got))
		}
		if got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// TestRate: after a while a bar says how fast its bytes come; each step counts
// its own.
func TestRate(t *testing.T) {
	records := `{"status":"Downloading","progressDetail":{"current":1000000,"total":10000000},"id":"aaa"}
{"status":"Downloading","progressDetail":{"current":3000000,"total":10000000},"id":"aaa"}
{"status":"Extracting","progressDetail":{"current":1000,"total":10000000},"id":"bbb"}
`
	at := time.Unix(0, 0)
	clock := func() time.Time {
		at = at.Add(time.Second)
		return at
	}
	var s screen
	if _, err := (Display{Out: &s, Size: func() (uint, uint) { return 24, 80 }, now: clock}).Show(strings.NewReader(records)); err != nil {
		t.Fatal(err)
	}
	want := "aaa: Downloading [=============>                              ]  3MB/10MB  2MB/s\n" +
		"bbb: Extracting [>                                                 ]  1kB/10MB\n"
	if s.String() != want {
		t.Errorf("screen\n%s\nwant\n%s", s.String(), want)
	}
}
