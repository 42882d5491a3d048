package spawn

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRequest(t *testing.T) {
	var b bytes.Buffer
	want := [][]string{{"/bin/true"}, {"/bin/sh", "-c", "", "a b\nc"}}
	for i, argv := range want {
		if err := WriteRequest(&b, i+7, argv); err != nil {
			t.Fatal(err)
		}
	}
	for i, argv := range want {
		number, got, err := ReadRequest(&b)
		if err != nil || number != i+7 || !slices.Equal(got, argv) {
			t.Errorf("got %d %q %v, want %d %q", number, got, err, i+7, argv)
		}
	}
	if _, _, err := ReadRequest(&b); err != io.EOF {
		t.Errorf("after the last request: %v, want %v", err, io.EOF)
	}
}

func TestResult(t *testing.T) {
	want := Result{
		Wall: 12 * time.Millisecond, User: time.Microsecond, System: 3, PeakKiB: 4096, MinorFaults: 5, MajorFaults: 6,
		Voluntary: 7, Involuntary: 8, Status: -1, Output: "a\x00b\n",
	}
	var b bytes.Buffer
	if err := WriteResult(&b, 9, &want); err != nil {
		t.Fatal(err)
	}
	number, got, err := ReadResult(&b)
	if err != nil || number != 9 || *got != want {
		t.Errorf("got %d %+v %v, want 9 %+v", number, got, err, want)
	}
}

func TestResultCutsOutput(t *testing.T) {
	var b bytes.Buffer
	if err := WriteResult(&b, 1, &Result{Output: strings.Repeat("x", 2*MaxOutput)}); err != nil {
		t.Fatal(err)
	}
	_, got, err := ReadResult(&b)
	if err != nil || len(got.Output) != MaxOutput {
		t.Errorf("%d bytes of output, error %v; want %d", len(got.Output), err, MaxOutput)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"cut short": "\x00\x00\x00\x09ab",
		"too long":  "\xff\xff\xff\xff",
		"no number": "\x00\x00\x00\x03a\x00b",
		"empty":     "\x00\x00\x00\x00",
	} {
		if _, _, err := ReadRequest(strings.NewReader(text)); err == nil || err == io.EOF {
			t.Errorf("request %s: error %v", name, err)
		}
		if _, _, err := ReadResult(strings.NewReader(text)); err == nil || err == io.EOF {
			t.Errorf("result %s: error %v", name, err)
		}
	}
}
