package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// logFixture is a json-file log written and rotated as the keeper does.
type logFixture struct {
	t     *testing.T
	files *logFiles
	n     int
}

func newLogFixture(t *testing.T, max int) *logFixture {
	return &logFixture{t: t, files: &logFiles{path: filepath.Join(t.TempDir(), "x-json.log"), max: max}}
}

func (f *logFixture) append(data string) {
	f.t.Helper()
	w, err := os.OpenFile(f.files.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString(data); err != nil {
		f.t.Fatal(err)
	}
}

// line is entry n: stdout, and stderr for every third.
func (f *logFixture) line(n int) string {
	stream := "stdout"
	if n%3 == 0 {
		stream = "stderr"
	}
	return fmt.Sprintf("{\"log\":\"line %d\\n\",\"stream\":%q,\"time\":%q}\n", n, stream, time.Unix(int64(n), 0).UTC().Format(time.RFC3339Nano))
}

func (f *logFixture) lines(count int) {
	for range count {
		f.n++
		f.append(f.line(f.n))
	}
}

func (f *logFixture) rotate() {
	f.t.Helper()
	if f.files.max == 1 {
		os.Remove(f.files.path)
		return
	}
	for i := f.files.max - 1; i > 0; i-- {
		if err := os.Rename(f.files.name(i-1), f.files.name(i)); err != nil && !os.IsNotExist(err) {
			f.t.Fatal(err)
		}
	}
}

func (f *logFixture) read(opt LogsOptions) string {
	f.t.Helper()
	var out logLines
	r, err := newLogReader(f.files, opt, &out)
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.close()
	if err := r.readAll(context.Background()); err != nil {
		f.t.Fatal(err)
	}
	return out.String() + out.stderr.String()
}

func all() LogsOptions { return LogsOptions{Stdout: true, Stderr: true, Tail: -1} }

// want is lines from..to as they read.
func want(from, to int) string {
	var b strings.Builder
	for n := from; n <= to; n++ {
		if n%3 != 0 {
			fmt.Fprintf(&b, "line %d\n", n)
		}
	}
	for n := from; n <= to; n++ {
		if n%3 == 0 {
			fmt.Fprintf(&b, "line %d\n", n)
		}
	}
	return b.String()
}

func TestLogReaderReadsRotatedFiles(t *testing.T) {
	f := newLogFixture(t, 3)
	f.lines(5)
	f.rotate()
	f.lines(5)
	f.rotate()
	f.lines(5)
	if got := f.read(all()); got != want(1, 15) {
		t.Errorf("read:\n%s", got)
	}
	f.rotate()
	f.lines(1)
	if got := f.read(all()); got != want(6, 16) {
		t.Errorf("after the oldest was dropped:\n%s", got)
	}
}

func TestLogReaderTail(t *testing.T) {
	f := newLogFixture(t, 3)
	f.lines(5)
	f.rotate()
	f.lines(5)
	f.append(`{"log":"not whole yet`)
	for tail, from := range map[int]int{0: 11, 1: 10, 5: 6, 6: 5, 9: 2, 10: 1, 100: 1, -1: 1} {
		opt := all()
		opt.Tail = tail
		if got := f.read(opt); got != want(from, 10) {
			t.Errorf("tail %d:\n%s", tail, got)
		}
	}
}

func TestLogReaderTailAcrossBlocks(t *testing.T) {
	f := newLogFixture(t, 1)
	f.lines(3000) // more than one block of 64 KiB
	for _, tail := range []int{1, 999, 2500, 2999, 3000} {
		opt := all()
		opt.Tail = tail
		if got := f.read(opt); got != want(3001-tail, 3000) {
			t.Errorf("tail %d: %d bytes", tail, len(got))
		}
	}
}

func TestLogReaderSelects(t *testing.T) {
	f := newLogFixture(t, 1)
	f.lines(9)
	if got := f.read(LogsOptions{Stderr: true, Tail: -1}); got != "line 3\nline 6\nline 9\n" {
		t.Errorf("stderr:\n%s", got)
	}
	opt := all()
	opt.Since, opt.Until = time.Unix(4, 0), time.Unix(7, 0)
	if got := f.read(opt); got != want(4, 7) {
		t.Errorf("since 4 until 7:\n%s", got)
	}
	opt = all()
	opt.Timestamps, opt.Until = true, time.Unix(1, 0)
	if got := f.read(opt); got != "1970-01-01T00:00:01.000000000Z line 1\n" {
		t.Errorf("with timestamp: %q", got)
	}
}

func TestLogReaderSkipsTornLines(t *testing.T) {
	f := newLogFixture(t, 2)
	f.lines(1)
	f.append("{\"log\":\"torn by a cra\n")
	f.lines(1)
	f.append(`{"log":"torn at the end`)
	f.rotate()
	f.lines(1)
	if got := f.read(all()); got != want(1, 3) {
		t.Errorf("read:\n%s", got)
	}
}

// TestLogReaderFollowsRotations reads in small steps what is written between
// any two of them: every line once and in order, however many rotations there
// were, as long as no unread file was dropped.
func TestLogReaderFollowsRotations(t *testing.T) {
	f := newLogFixture(t, 4)
	var out logLines
	r, err := newLogReader(f.files, all(), &out)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	step := func() {
		t.Helper()
		if err := r.readAll(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	step() // before there is a file
	for round := range 12 {
		f.lines(round % 4)
		if round%2 == 0 {
			step()
		}
		half := f.line(f.n + 1)
		f.append(half[:10])
		step() // half an entry
		f.append(half[10:])
		f.n++
		for range round % 3 {
			f.rotate()
			f.lines(1)
		}
		if round%3 == 1 {
			f.rotate()
			step() // between renaming and opening
		}
	}
	f.lines(1)
	step()
	step()
	if got := out.String() + out.stderr.String(); got != want(1, f.n) {
		t.Errorf("followed:\n%s\nwant %d lines", got, f.n)
	}
	if len(r.queue) != 1 {
		t.Errorf("%d files open", len(r.queue))
	}
}

func TestLogReaderWithOneFile(t *testing.T) {
	f := newLogFixture(t, 1)
	var out logLines
	r, err := newLogReader(f.files, all(), &out)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for range 5 {
		f.lines(3)
		if err := r.readAll(context.Background()); err != nil {
			t.Fatal(err)
		}
		f.lines(1)
		f.rotate()
	}
	f.lines(1)
	if err := r.readAll(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := out.String() + out.stderr.String(); got != want(1, f.n) {
		t.Errorf("followed:\n%s", got)
	}
}

func TestDecodeEntryAgreesWithJSON(t *testing.T) {
	for _, text := range []string{
		"plain\n", "", "tab\tquote\" back\\slash /\n", "\x00\x01\x1b[0m\r\n", "ünïcödé 日本 \U0001F6A2\n", "<&>\u2028\u2029",
		`","stream":"stderr","time":"x`, "\\", strings.Repeat("x\n", 9000), `\u0041`,
	} {
		for _, escape := range []bool{true, false} {
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(escape)
			at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
			if err := enc.Encode(struct {
				Log    string    `json:"log"`
				Stream string    `json:"stream"`
				Time   time.Time `json:"time"`
			}{text, "stderr", at}); err != nil {
				t.Fatal(err)
			}
			e, err := decodeEntry(bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil)
			if err != nil || string(e.text) != text || e.stream != Stderr || !e.at.Equal(at) {
				t.Errorf("%q decoded to %q, %v, %v", text, e.text, e.stream, err)
			}
		}
	}
	for line, ok := range map[string]bool{
		`{"time":"2026-01-02T03:04:05Z","log":"x","stream":"stdout"}`:            true,
		`{"log":"\ud83d\udea2","stream":"stdout","time":"2026-01-02T03:04:05Z"}`: true,
		`{"log":"\ud83d","stream":"stdout","time":"2026-01-02T03:04:05Z"}`:       true,
		`{"log":"\q","stream":"stdout","time":"2026-01-02T03:04:05Z"}`:           false,
		`{"log":"x","stream":"stdout"}`:                                          false,
		`{"log":"x","stream":"stdout","time":"yesterday"}`:                       false,
		`nonsense`: false, ``: false, `{"log":"`: false,
	} {
		if e, err := decodeEntry([]byte(line), nil); (err == nil) != ok {
			t.Errorf("%s: %q, %v", line, e.text, err)
		}
	}
}

func TestLogWatchRings(t *testing.T) {
	w, err := newLogWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	f := newLogFixture(t, 2)
	a, stopA, err := w.follow(f.files.path)
	if err != nil {
		t.Fatal(err)
	}
	b, stopB, err := w.follow(f.files.path)
	if err != nil {
		t.Fatal(err)
	}
	<-a.C // rings once at first
	<-b.C
	f.lines(1)
	<-a.C
	<-b.C
	stopA()
	f.rotate()
	<-b.C
	stopB()
	if len(w.dirs) != 0 {
		t.Errorf("%d directories still watched", len(w.dirs))
	}
}

// TestLogFilesStayInOrder rotates once, twice and three times while the files
// are being opened.
func TestLogFilesStayInOrder(t *testing.T) {
	for rotations := 1; rotations <= 3; rotations++ {
		for at := range 3 {
			f := newLogFixture(t, 10)
			for range 3 {
				f.lines(2)
				f.rotate()
			}
			f.lines(2)
			n := 0
			f.files.opened = func() {
				if n++; n == at+1 {
					for range rotations {
						f.rotate()
						f.lines(2)
					}
				}
			}
			if got, all := f.read(all()), want(1, 8+2*rotations); got != all {
				t.Errorf("%d rotations after file %d:\n%s", rotations, at, got)
			}
		}
	}
}

// TestLogReaderAgainstFastRotation reads while a writer rotates as fast as it
// can: every line once and in order.
func TestLogReaderAgainstFastRotation(t *testing.T) {
	const lines, perFile = 3000, 30
	f := newLogFixture(t, lines/perFile+10)
	done := make(chan error, 1)
	go func() { done <- f.writeFast(lines, perFile) }()
	var out logLines
	r, err := newLogReader(f.files, LogsOptions{Stdout: true, Stderr: true, Tail: -1}, &out)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for writing := true; writing; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			writing = false
		default:
		}
		if err := r.readAll(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if got := out.String() + out.stderr.String(); got != want(1, lines) {
		t.Errorf("followed %d bytes, want %d", len(got), len(want(1, lines)))
	}
}

// writeFast writes and rotates as the keeper does, with the file held open.
func (f *logFixture) writeFast(lines, perFile int) error {
	var w *os.File
	for n := 1; n <= lines; n++ {
		if (n-1)%perFile == 0 {
			if w != nil {
				for i := f.files.max - 1; i > 0; i-- {
					if err := os.Rename(f.files.name(i-1), f.files.name(i)); err != nil && !os.IsNotExist(err) {
						return err
					}
				}
				w.Close()
			}
			var err error
			if w, err = os.OpenFile(f.files.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
				return err
			}
		}
		if _, err := w.WriteString(f.line(n)); err != nil {
			return err
		}
	}
	return w.Close()
}
