package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
)

// The help texts of --format.
const (
	listFormatHelp    = "Format output: 'table', 'table TEMPLATE', 'json' or a Go 'TEMPLATE'"
	inspectFormatHelp = "Format output: 'json' or a Go 'TEMPLATE'"
)

// filterFlag is --filter name=value, given any number of times.
type filterFlag struct{ client.Filters }

func (f *filterFlag) String() string {
	if len(f.Filters) == 0 {
		return ""
	}
	text, _ := json.Marshal(f.Filters)
	return string(text)
}

// text lists the filters for people, a line each.
func (f *filterFlag) text() string {
	var lines []string
	for name, values := range f.Filters {
		for v := range values {
			lines = append(lines, "  - "+name+"="+v+"\n")
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}

func (f *filterFlag) Set(v string) error {
	if v == "" {
		return nil
	}
	name, value, ok := strings.Cut(v, "=")
	if !ok {
		return errors.New("bad format of filter (expected name=value)")
	}
	if f.Filters == nil {
		f.Filters = client.Filters{}
	}
	f.Add(strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value))
	return nil
}

func (f *filterFlag) Type() string { return "filter" }

// listFlag is a flag that may be given several times.
type listFlag []string

func (l *listFlag) String() string     { return strings.Join(*l, ",") }
func (l *listFlag) Set(v string) error { *l = append(*l, v); return nil }
func (l *listFlag) Type() string       { return "list" }

// optionalInt is an integer flag that may be not given.
func optionalInt(fs *pflag.FlagSet, name string, v int) *int {
	if !fs.Changed(name) {
		return nil
	}
	return &v
}

// timestamp turns a point in time as people write it (a date and time, seconds
// since the epoch, or a duration back from now) into the API's seconds with a
// fraction. Dates without a zone are local.
func timestamp(v string, now time.Time) (string, error) {
	if v == "" {
		return "", nil
	}
	if d, err := time.ParseDuration(v); err == nil {
		return unixTime(now.Add(-d)), nil
	}
	if sec, frac, _ := strings.Cut(v, "."); isDigits(sec) && (frac == "" || isDigits(frac)) {
		return v, nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04",
		"2006-01-02Z07:00", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return unixTime(t), nil
		}
	}
	return "", fmt.Errorf("invalid time %q: want a date like 2013-01-02T13:23:37Z, seconds since 1970 or a duration like 10m", v)
}

func unixTime(t time.Time) string {
	return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond())
}

func isDigits(s string) bool {
	_, err := strconv.ParseUint(s, 10, 63)
	return err == nil && !strings.ContainsAny(s, "+-_")
}
