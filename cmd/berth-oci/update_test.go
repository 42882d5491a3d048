package main

import "testing"

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"-1": -1, "0": 0, "1048576": 1 << 20, "512m": 512 << 20, "512M": 512 << 20, "1.5g": 3 << 29, "2GiB": 2 << 30, "3kb": 3072, "7b": 7, "1 t": 1 << 40,
	} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "m", "-2", "1x", "1mk", "1gg", "nan", "inf", "9999999p", "0x10", "1e400"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q is %d, want an error", s, got)
		}
	}
}
