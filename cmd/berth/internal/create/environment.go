package create

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

const blanks = " \t"

// Environment is the environment that --env-file and --env give: the files
// first, so that the flags win. A bare NAME takes its value from lookup; in a
// file it is left out when lookup has none, as a flag it is kept, which tells
// the engine to remove the image's.
func Environment(files, flags []string, lookup func(string) (string, bool)) ([]string, error) {
	var env []string
	for _, file := range files {
		lines, err := readPairs(file, "variable", lookup)
		if err != nil {
			return nil, err
		}
		env = append(env, lines...)
	}
	for _, v := range flags {
		name, _, hasValue := strings.Cut(v, "=")
		if name == "" {
			return nil, fmt.Errorf("invalid environment variable: %s", v)
		}
		if value, ok := lookup(name); ok && !hasValue {
			v = name + "=" + value
		}
		env = append(env, v)
	}
	return env, nil
}

// labelsOf joins the labels of files and flags.
func labelsOf(files, flags []string) (map[string]string, error) {
	all := map[string]string{}
	var pairs []string
	for _, file := range files {
		lines, err := readPairs(file, "label", nil)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, lines...)
	}
	for _, pair := range append(pairs, flags...) {
		key, value, _ := strings.Cut(strings.TrimLeft(pair, blanks), "=")
		if key == "" {
			return nil, fmt.Errorf("invalid label '%s': empty name", pair)
		}
		if strings.ContainsAny(key, blanks) {
			return nil, fmt.Errorf("label '%s' contains whitespaces", key)
		}
		all[key] = value
	}
	return all, nil
}

// readPairs reads a file of key=value lines; # begins a comment line. A line
// without = takes its value from lookup and is left out when that has none;
// with a nil lookup it has an empty value.
func readPairs(path, what string, lookup func(string) (string, bool)) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	pairs, err := parsePairs(f, what, lookup)
	if err != nil {
		return nil, fmt.Errorf("invalid %s file %s: %w", map[string]string{"variable": "env", "label": "label"}[what], path, err)
	}
	return pairs, nil
}

func parsePairs(r io.Reader, what string, lookup func(string) (string, bool)) ([]string, error) {
	var pairs []string
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		text := s.Bytes()
		if n == 1 {
			text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		}
		if !utf8.Valid(text) {
			return nil, fmt.Errorf("invalid utf8 bytes at line %d: %q", n, text)
		}
		line := strings.TrimLeft(string(text), blanks)
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, hasValue := strings.Cut(line, "=")
		if key == "" {
			return nil, fmt.Errorf("no %s name on line '%s'", what, line)
		}
		if strings.ContainsAny(key, blanks) {
			return nil, fmt.Errorf("%s '%s' contains whitespaces", what, key)
		}
		switch {
		case hasValue:
			pairs = append(pairs, line)
		case lookup == nil:
			pairs = append(pairs, line+"=")
		default:
			if value, ok := lookup(key); ok {
				pairs = append(pairs, key+"="+value)
			}
		}
	}
	return pairs, s.Err()
}
