// Package spawn runs commands for the benchmarks through a process of few
// resources, the spawner, which starts each one with a plain fork and exec,
// times it and reads what it used.
//
// The harness itself would do for the time, but not for the memory: the kernel
// counts as a process's peak memory what its parent had at the moment of exec
// (getrusage(2), ru_maxrss), and the harness is larger than what it measures.
package spawn

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Result is one command's life.
type Result struct {
	// Wall is the time from just before fork to just after the exit was
	// collected.
	Wall time.Duration
	// User and System are the processor time of the command and of every
	// process it has waited for (wait4(2), rusage).
	User, System time.Duration
	// PeakKiB is the largest resident set that the command or any process it
	// has waited for had, in KiB. It is never less than the spawner's own.
	PeakKiB int64
	// MinorFaults were served without, MajorFaults with input from a disk.
	MinorFaults, MajorFaults int64
	// Voluntary are switches to another task because of waiting, Involuntary
	// those the scheduler made.
	Voluntary, Involuntary int64
	// Status is the exit status, 128+N for signal N, and -1 when the command
	// could not be started.
	Status int
	// Output is what the command wrote to standard output and standard error,
	// at most [MaxOutput] bytes of it, or why it was not started.
	Output string
}

// MaxOutput is how much of a command's output is passed on, in bytes.
const MaxOutput = 64 << 10

// maxFrame bounds a message, in bytes.
const maxFrame = 1 << 20

// separator is between the fields of a message. No argument can hold it.
const separator = "\x00"

// WriteRequest asks for a command to be run, under a number that its result
// will have.
func WriteRequest(w io.Writer, number int, argv []string) error {
	return writeFrame(w, strconv.Itoa(number)+separator+strings.Join(argv, separator))
}

// ReadRequest reads what WriteRequest has written; io.EOF when there is no more.
func ReadRequest(r io.Reader) (number int, argv []string, err error) {
	frame, err := readFrame(r)
	if err != nil {
		return 0, nil, err
	}
	fields := strings.Split(frame, separator)
	if number, err = strconv.Atoi(fields[0]); err != nil {
		return 0, nil, err
	}
	return number, fields[1:], nil
}

// WriteResult answers the request of that number.
func WriteResult(w io.Writer, number int, res *Result) error {
	var b strings.Builder
	for _, n := range []int64{
		int64(number), int64(res.Wall), int64(res.User), int64(res.System), res.PeakKiB,
		res.MinorFaults, res.MajorFaults, res.Voluntary, res.Involuntary, int64(res.Status),
	} {
		b.WriteString(strconv.FormatInt(n, 10))
		b.WriteString(separator)
	}
	b.WriteString(res.Output[:min(len(res.Output), MaxOutput)])
	return writeFrame(w, b.String())
}

// ReadResult reads what WriteResult has written; io.EOF when there is no more.
func ReadResult(r io.Reader) (number int, res *Result, err error) {
	const numbers = 10
	frame, err := readFrame(r)
	if err != nil {
		return 0, nil, err
	}
	fields := strings.SplitN(frame, separator, numbers+1)
	if len(fields) != numbers+1 {
		return 0, nil, fmt.Errorf("read result: %d fields", len(fields))
	}
	var n [numbers]int64
	for i := range n {
		if n[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil {
			return 0, nil, fmt.Errorf("read result: %w", err)
		}
	}
	return int(n[0]), &Result{
		Wall: time.Duration(n[1]), User: time.Duration(n[2]), System: time.Duration(n[3]), PeakKiB: n[4],
		MinorFaults: n[5], MajorFaults: n[6], Voluntary: n[7], Involuntary: n[8], Status: int(n[9]), Output: fields[numbers],
	}, nil
}

// writeFrame writes a message in one write: length as a big endian 32 bit
// number, then the text.
func writeFrame(w io.Writer, text string) error {
	b := make([]byte, 4, 4+len(text))
	binary.BigEndian.PutUint32(b, uint32(len(text)))
	_, err := w.Write(append(b, text...))
	return err
}

func readFrame(r io.Reader) (string, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return "", fmt.Errorf("read message: %d bytes", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", fmt.Errorf("read message: %w", err)
	}
	return string(text), nil
}
