package keeper

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newTestLog(t *testing.T, c LogConfig) *jsonLog {
	t.Helper()
	file, err := openLogFile(c, discardLog())
	must(t, err)
	return &jsonLog{buffers: &sync.Pool{New: func() any { return new(bytes.Buffer) }}, file: file}
}

func TestLogEntryIsDockersByteForByte(t *testing.T) {
	at := time.Date(2026, 11, 23, 22, 34, 5, 120_000_000, time.FixedZone("", 3600))
	for text, want := range map[string]string{
		"plain\n":                `plain\n`,
		"\n":                     `\n`,
		"tab\tquote\"back\\\r\n": `tab\u0009quote\"back\\\r\n`,
		"<a&b>\x1b[0m\x7f\n":     "\\u003ca\\u0026b\\u003e\\u001b[0m\x7f\\n",
		"é€\u2028\u2029\n":       `é€\u2028\u2029\n`,
		"\xff\xc3(\n":            `\ufffd\ufffd(\n`,
	} {
		path := filepath.Join(t.TempDir(), "log")
		l := newTestLog(t, LogConfig{Path: path})
		l.add(&logStream{name: "stdout"}, []byte(text), at)
		must(t, l.close())
		got, err := os.ReadFile(path)
		must(t, err)
		line := `{"log":"` + want + `","stream":"stdout","time":"2026-11-23T21:34:05.12Z"}` + "\n"
		if string(got) != line {
			t.Errorf("%q becomes\n%s want\n%s", text, got, line)
		}
	}
}

func TestLogLinesAcrossReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := newTestLog(t, LogConfig{Path: path})
	out, err := &logStream{name: "stdout"}, &logStream{name: "stderr"}
	for _, piece := range []string{"a", "b\nc\xc3", "\xa9", "\n", "tail"} {
		l.add(out, []byte(piece), time.Now())
		l.add(err, []byte("e\n"), time.Now())
	}
	l.flush()
	if text := logText(readLog(t, path)); strings.ReplaceAll(text, "e\n", "") != "ab\ncé\n" {
		t.Errorf("before the end: %q", text)
	}
	l.end(out, time.Now())
	l.end(err, time.Now())
	must(t, l.close())
	entries := readLog(t, path)
	if last := entries[len(entries)-1]; last.Log != "tail" || last.Stream != "stdout" {
		t.Errorf("last entry %+v", last)
	}
}

func TestLongLinesAreSplitAsDockerDoes(t *testing.T) {
	for _, size := range []int{maxLogLine - 1, maxLogLine, maxLogLine + 1, 3*maxLogLine + 5} {
		for _, step := range []int{1000, maxLogLine, 32 << 10} {
			path := filepath.Join(t.TempDir(), "log")
			l := newTestLog(t, LogConfig{Path: path})
			s := &logStream{name: "stdout"}
			text := []byte(strings.Repeat("x", size) + "\nnext\n")
			for i := 0; i < len(text); i += step {
				l.add(s, text[i:min(i+step, len(text))], time.Unix(int64(i+1), 0))
			}
			must(t, l.close())
			entries := readLog(t, path)
			var sizes []int
			for _, e := range entries {
				sizes = append(sizes, len(e.Log))
			}
			want := []int{}
			for rest := size; ; rest -= maxLogLine {
				if rest < maxLogLine {
					want = append(want, rest+1, len("next\n"))
					break
				}
				want = append(want, maxLogLine)
			}
			if fmt.Sprint(sizes) != fmt.Sprint(want) || logText(entries) != string(text) {
				t.Errorf("size %d in steps of %d: entries of %v, want %v", size, step, sizes, want)
			}
			for _, e := range entries[:len(entries)-1] {
				if !e.Time.Equal(entries[0].Time) {
					t.Errorf("size %d: parts of one line have different times", size)
				}
			}
		}
	}
}

func TestRotation(t *testing.T) {
	for _, files := range []int{1, 2, 4} {
		dir := t.TempDir()
		path := filepath.Join(dir, "log")
		l := newTestLog(t, LogConfig{Path: path, MaxSize: 1000, MaxFiles: files})
		s := &logStream{name: "stdout"}
		const lines = 300
		for i := 1; i <= lines; i++ {
			l.add(s, []byte(strconv.Itoa(i)+"\n"), time.Now())
			if i%7 == 0 {
				l.flush()
			}
		}
		must(t, l.close())
		names, err := os.ReadDir(dir)
		must(t, err)
		if len(names) != files {
			t.Errorf("%d files of %d", len(names), files)
		}
		var all []logEntry
		for i := files - 1; i >= 0; i-- {
			name := path
			if i > 0 {
				name += "." + strconv.Itoa(i)
			}
			part := readLog(t, name)
			if info, err := os.Stat(name); err != nil || info.Size() > 1100 || i > 0 && info.Size() < 1000 {
				t.Errorf("%s has %d bytes, %v", name, info.Size(), err)
			}
			all = append(all, part...)
		}
		for i, e := range all {
			if want := strconv.Itoa(lines-len(all)+1+i) + "\n"; e.Log != want {
				t.Fatalf("with %d files: entry %q, want %q", files, e.Log, want)
			}
		}
	}
}

func TestLogGoesOnAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	must(t, os.WriteFile(path, []byte(`{"log":"whole\n"}`+"\n"+`{"log":"tor`), 0o600))
	l := newTestLog(t, LogConfig{Path: path})
	l.add(&logStream{name: "stdout"}, []byte("new\n"), time.Now())
	must(t, l.close())
	data, err := os.ReadFile(path)
	must(t, err)
	lines := strings.Split(string(data), "\n")
	if len(lines) != 4 || lines[1] != `{"log":"tor` || !json.Valid([]byte(lines[2])) {
		t.Errorf("log %q", data)
	}
}

func TestLogMayNotBeADeviceOrLink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(filepath.Join(dir, "target"), link))
	for _, path := range []string{link, "/dev/null", dir} {
		if _, err := openLogFile(LogConfig{Path: path}, discardLog()); err == nil {
			t.Errorf("%s was opened", path)
		}
	}
}

// A full disk stalls nobody; whole entries are lost and counted, and what was
// lost is told when there is space again, whichever program the keeper is by then.
func TestFullDisk(t *testing.T) {
	for _, tc := range []struct {
		name      string
		maxBuffer int64
		upgraded  bool
	}{{"waiting", 0, false}, {"upgraded", 0, true}, {"queued and upgraded", 1 << 20, true}} {
		t.Run(tc.name, func(t *testing.T) { testFullDisk(t, tc.maxBuffer, tc.upgraded) })
	}
}

func testFullDisk(t *testing.T, maxBuffer int64, upgraded bool) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	ballast := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 64<<10), 0o600))

	h := newHarness(t)
	const lines = 5000
	gate := fifo(t, h)
	r := h.sh("a", fmt.Sprintf("seq %d; read x < %s; echo after", lines, gate))
	r.Log.Path, r.Log.MaxBuffer = filepath.Join(dir, "log"), maxBuffer
	stream := h.attach("a", "", allOutput)
	h.start(r)
	// The client has the whole output: the container was not stalled.
	readUntil(t, stream, fmt.Sprintf("%d\n", lines))
	if upgraded {
		h.upgrade()
	}
	must(t, os.Remove(ballast))
	must(t, os.WriteFile(gate, []byte("go\n"), 0))
	if s := h.wait("a", ""); s.ExitCode != 0 || s.Error != "" {
		t.Errorf("status %+v", s)
	}
	entries := readLog(t, r.Log.Path)
	kept := len(entries) - 2
	if kept < 100 || kept >= lines {
		t.Fatalf("%d entries kept", kept)
	}
	checkNumbers(t, entries[:kept], kept)
	notice := entries[kept]
	want := fmt.Sprintf("berth: %d log entries (", lines-kept)
	if !strings.HasPrefix(notice.Log, want) || !strings.HasSuffix(notice.Log, "lost here: no space left on device\n") {
		t.Errorf("notice %q, want %q…", notice.Log, want)
	}
	if entries[kept+1].Log != "after\n" {
		t.Errorf("after the notice: %q", entries[kept+1].Log)
	}
}

// checkNumbers checks that the stdout entries are the lines 1 to n, each once
// and in order.
func checkNumbers(t *testing.T, entries []logEntry, n int) {
	t.Helper()
	next := 1
	for _, e := range entries {
		if e.Stream != "stdout" {
			continue
		}
		if e.Log != strconv.Itoa(next)+"\n" {
			t.Fatalf("entry %q where %d was due", e.Log, next)
		}
		next++
	}
	if next != n+1 {
		t.Fatalf("%d numbers of %d", next-1, n)
	}
}

func BenchmarkLog(b *testing.B) {
	file, err := openLogFile(LogConfig{Path: filepath.Join(b.TempDir(), "log"), MaxSize: 64 << 20}, discardLog())
	if err != nil {
		b.Fatal(err)
	}
	l := &jsonLog{buffers: &sync.Pool{New: func() any { return new(bytes.Buffer) }}, file: file}
	s := &logStream{name: "stdout"}
	line := []byte(strings.Repeat("a line as servers print them ", 3) + "\n")
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		l.add(s, line, time.Now())
	}
	l.close()
}
