package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
)

// WriteFiles writes results.json, results.md and the plot into a directory.
func (r *Results) WriteFiles(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(compact(raw), '\n'), 0o644); err != nil {
		return err
	}
	var plot, text bytes.Buffer
	drawn, err := r.WriteSVG(&plot)
	if err != nil {
		return err
	}
	if drawn {
		if err := os.WriteFile(filepath.Join(dir, Plot), plot.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if err := r.WriteMarkdown(&text, drawn); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "results.md"), text.Bytes(), 0o644)
}

// compact puts lists of numbers, which MarshalIndent gives a line for each
// number, on one line.
func compact(raw []byte) []byte {
	var out []byte
	lines := bytes.Split(raw, []byte("\n"))
	for i, line := range lines {
		closes := i > 0 && isNumber(lines[i-1])
		switch {
		case isNumber(line) || closes:
			out = append(out, bytes.TrimSpace(line)...)
		case i > 0:
			out = append(append(out, '\n'), line...)
		default:
			out = append(out, line...)
		}
	}
	return out
}

func isNumber(line []byte) bool {
	text := bytes.TrimSpace(line)
	return len(text) > 0 && (text[0] == '-' || text[0] >= '0' && text[0] <= '9')
}
