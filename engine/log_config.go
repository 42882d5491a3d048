package engine

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/berth-containers/berth/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
)

// The log drivers there are.
const (
	logJSONFile = "json-file"
	logLocal    = "local"
	logJournald = "journald"
	logSyslog   = "syslog"
	logNone     = "none"
)

// What a log is limited to when its options do not say.
const (
	logDefaultSize  = 20 << 20
	logDefaultFiles = 5
	// logDefaultBuffer is Docker's max-buffer-size.
	logDefaultBuffer = 1 << 20
)

// The options of all drivers that write, and of those that write files.
var (
	logCommonOptions = []string{"labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"}
	logFileOptions   = []string{"max-size", "max-file", "compress"}
	logCacheOptions  = []string{"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"}
)

// LogDrivers are the names of the log drivers, sorted.
func LogDrivers() []string {
	return []string{logJournald, logJSONFile, logLocal, logNone, logSyslog}
}

// logOptions are the options a driver knows; ok is false for an unknown driver.
func logOptions(driver string) (options []string, ok bool) {
	switch driver {
	case logNone:
		return nil, true
	case logJSONFile, logLocal:
		return slices.Concat(logCommonOptions, logFileOptions), true
	case logJournald:
		return slices.Concat(logCommonOptions, logCacheOptions), true
	case logSyslog:
		return slices.Concat(logCommonOptions, logCacheOptions, syslogOptions), true
	}
	return nil, false
}

// CheckLog refuses log drivers and options that there are not, and values that
// make no sense.
func CheckLog(driver string, options map[string]string) error {
	known, ok := logOptions(driver)
	if !ok {
		return errdefs.WithHint(invalidf("unknown log driver %q", driver),
			fmt.Sprintf("there are %v", LogDrivers()))
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if !slices.Contains(known, name) {
			return errdefs.WithHint(invalidf("unknown log opt '%s' for %s log driver", name, driver),
				fmt.Sprintf("it knows %v", known))
		}
	}
	if driver == logNone {
		return nil
	}
	lc := container.LogConfig{Type: driver, Config: options}
	if _, err := logLimits(lc); err != nil {
		return err
	}
	for _, name := range []string{"labels-regex", "env-regex"} {
		if _, err := regexp.Compile(options[name]); err != nil {
			return invalidf("invalid log option %s: %w", name, err)
		}
	}
	if _, err := logTag(&record{Config: &container.Config{}, HostConfig: &container.HostConfig{LogConfig: lc}}); err != nil {
		return err
	}
	if driver == logSyslog {
		_, err := parseSyslog(options)
		return err
	}
	return nil
}

func checkLogConfig(lc container.LogConfig) error { return CheckLog(lc.Type, lc.Config) }

// logBounds is what a log on this host is limited to.
type logBounds struct {
	// size of a file in bytes, 0 is unlimited; files at most.
	size  int64
	files int
	// compress rotated files.
	compress bool
	// unread files are for what is not sent yet alone: nobody may read them.
	unread bool
	// buffer is how much waits for the disk in memory; 0: the container waits.
	buffer int64
}

// logLimits reads the limits of the files a container's log is kept in. Those of
// json-file and local are the log; for journald and syslog they are what is not
// sent yet, and what "logs" shows.
func logLimits(lc container.LogConfig) (b logBounds, err error) {
	if lc.Type == logNone {
		return b, nil
	}
	prefix := ""
	if sendsLog(lc.Type) {
		prefix = "cache-"
	}
	size, files, compress := prefix+"max-size", prefix+"max-file", prefix+"compress"
	b = logBounds{size: logDefaultSize, files: logDefaultFiles, compress: lc.Type == logLocal}
	if s := lc.Config[size]; s != "" {
		if lc.Type == logJSONFile {
			b.files = 1 // as with Docker
		}
		if b.size, err = readLogSize(size, s); err != nil {
			return b, err
		}
		if b.size == 0 {
			b.files = 1
		}
	}
	if s := lc.Config[files]; s != "" {
		if b.files, err = strconv.Atoi(s); err != nil || b.files < 1 {
			return b, invalidf("invalid log option %s=%s: must be at least 1", files, s)
		}
		if b.files > 1 && b.size == 0 {
			return b, invalidf("log option %s=%d needs %s", files, b.files, size)
		}
	}
	if b.compress, err = readLogBool(lc, compress, b.compress); err != nil {
		return b, err
	}
	if s := lc.Config[compress]; s != "" && b.compress && b.files < 2 {
		return b, invalidf("log option %s=%s needs %s of at least 2: only rotated files are compressed", compress, s, files)
	}
	b.compress = b.compress && b.files > 1
	if prefix != "" {
		if b.unread, err = readLogBool(lc, "cache-disabled", false); err != nil {
			return b, err
		}
	}
	b.buffer, err = readLogMode(lc)
	return b, err
}

func readLogSize(name, s string) (int64, error) {
	if s == "-1" {
		return 0, nil
	}
	size, err := units.RAMInBytes(s)
	if err != nil || size <= 0 {
		return 0, invalidf("invalid log option %s=%s: want a size such as 10m, or -1 for no limit", name, s)
	}
	return size, nil
}

func readLogBool(lc container.LogConfig, name string, unset bool) (bool, error) {
	s := lc.Config[name]
	if s == "" {
		return unset, nil
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return false, invalidf("invalid log option %s=%s: want true or false", name, s)
	}
	return v, nil
}

// readLogMode is the size of the buffer in memory; 0 for mode=blocking.
func readLogMode(lc container.LogConfig) (int64, error) {
	size := int64(logDefaultBuffer)
	s, given := lc.Config["max-buffer-size"]
	switch mode := lc.Config["mode"]; mode {
	case "", "blocking":
		if given {
			return 0, invalidf("log option max-buffer-size is only supported with mode=non-blocking")
		}
		return 0, nil
	case "non-blocking":
	default:
		return 0, invalidf("invalid log option mode=%s: want blocking or non-blocking", mode)
	}
	if !given {
		return size, nil
	}
	size, err := units.RAMInBytes(s)
	if err != nil || size <= 0 {
		return 0, invalidf("invalid log option max-buffer-size=%s: want a size such as 4m", s)
	}
	return size, nil
}

// sendsLog says whether a driver's entries go to somebody else.
func sendsLog(driver string) bool { return driver == logJournald || driver == logSyslog }
