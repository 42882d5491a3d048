package engine

import (
	"errors"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
)

func TestCheckLog(t *testing.T) {
	type options = map[string]string
	for _, tc := range []struct {
		driver string
		opts   options
		err    error
		text   string
	}{
		{logNone, nil, nil, ""},
		{logNone, options{"max-size": "1m"}, errdefs.ErrInvalid, "unknown log opt 'max-size' for none log driver"},
		{"gelf", nil, errdefs.ErrInvalid, `unknown log driver "gelf"`},
		{logJSONFile, options{"max-size": "10m", "max-file": "3", "compress": "true"}, nil, ""},
		{logJSONFile, options{"max-size": "-1"}, nil, ""},
		{logJSONFile, options{"max-size": "-1", "max-file": "3"}, errdefs.ErrInvalid, "needs max-size"},
		{logJSONFile, options{"max-size": "lots"}, errdefs.ErrInvalid, "max-size=lots"},
		{logJSONFile, options{"max-size": "0"}, errdefs.ErrInvalid, "max-size=0"},
		{logJSONFile, options{"max-file": "0"}, errdefs.ErrInvalid, "at least 1"},
		{logJSONFile, options{"max-files": "3"}, errdefs.ErrInvalid, "'max-files'"},
		{logJSONFile, options{"max-size": "1m", "compress": "true"}, errdefs.ErrInvalid, "max-file of at least 2"},
		{logJSONFile, options{"compress": "maybe"}, errdefs.ErrInvalid, "compress=maybe"},
		{logJSONFile, options{"mode": "non-blocking", "max-buffer-size": "4m"}, nil, ""},
		{logJSONFile, options{"max-buffer-size": "4m"}, errdefs.ErrInvalid, "mode=non-blocking"},
		{logJSONFile, options{"mode": "fast"}, errdefs.ErrInvalid, "mode=fast"},
		{logJSONFile, options{"labels-regex": "("}, errdefs.ErrInvalid, "labels-regex"},
		{logJSONFile, options{"tag": "{{.ID"}, errdefs.ErrInvalid, "tag={{.ID"},
		{logJSONFile, options{"labels": "a,b", "env": "C", "env-regex": "^D", "tag": "{{.Name}}"}, nil, ""},
		{logLocal, options{"max-size": "1m", "max-file": "2", "compress": "false"}, nil, ""},
		{logJournald, options{"tag": "x", "labels": "y"}, nil, ""},
		{logJournald, options{"max-size": "1m"}, errdefs.ErrInvalid, "'max-size' for journald"},
		{logJournald, options{"cache-max-size": "1m", "cache-max-file": "2"}, nil, ""},
		{logJournald, options{"cache-disabled": "true", "cache-compress": "true"}, nil, ""},
		{logJournald, options{"cache-disabled": "perhaps"}, errdefs.ErrInvalid, "cache-disabled=perhaps"},
		{logSyslog, options{"cache-compress": "true", "cache-max-file": "1"}, errdefs.ErrInvalid, "cache-max-file of at least 2"},
		{logSyslog, nil, nil, ""},
		{logSyslog, options{"syslog-address": "udp://192.0.2.1:1514", "syslog-facility": "local3", "syslog-format": "rfc5424micro"}, nil, ""},
		{logSyslog, options{"syslog-address": "http://x"}, errdefs.ErrInvalid, `unknown scheme "http"`},
		{logSyslog, options{"syslog-address": "tcp://"}, errdefs.ErrInvalid, "no host"},
		{logSyslog, options{"syslog-address": "unix://dev/log"}, errdefs.ErrInvalid, "absolute path"},
		{logSyslog, options{"syslog-facility": "local9"}, errdefs.ErrInvalid, "local9"},
		{logSyslog, options{"syslog-facility": "23"}, nil, ""},
		{logSyslog, options{"syslog-format": "rfc1"}, errdefs.ErrInvalid, "rfc1"},
		{logSyslog, options{"syslog-address": "tcp+tls://h", "syslog-tls-ca-cert": "/nosuch"}, errdefs.ErrInvalid, "syslog-tls-ca-cert"},
		{logSyslog, options{"syslog-address": "tcp+tls://h", "syslog-tls-cert": "/nosuch"}, errdefs.ErrInvalid, "syslog-tls-cert"},
	} {
		err := CheckLog(tc.driver, tc.opts)
		if !errors.Is(err, tc.err) || err != nil && !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s %v: %v, want %v", tc.driver, tc.opts, err, tc.text)
		}
	}
}

func TestLogLimits(t *testing.T) {
	for _, tc := range []struct {
		driver string
		opts   map[string]string
		want   logBounds
	}{
		{logJSONFile, nil, logBounds{size: 20 << 20, files: 5}},
		{logJSONFile, map[string]string{"max-size": "1m"}, logBounds{size: 1 << 20, files: 1}},
		{logJSONFile, map[string]string{"max-size": "-1"}, logBounds{files: 1}},
		{logJSONFile, map[string]string{"max-file": "2", "compress": "1"}, logBounds{size: 20 << 20, files: 2, compress: true}},
		{logLocal, nil, logBounds{size: 20 << 20, files: 5, compress: true}},
		{logLocal, map[string]string{"max-size": "1m"}, logBounds{size: 1 << 20, files: 5, compress: true}},
		{logLocal, map[string]string{"max-file": "1"}, logBounds{size: 20 << 20, files: 1}},
		{logSyslog, map[string]string{"cache-max-size": "1m", "cache-max-file": "3"}, logBounds{size: 1 << 20, files: 3}},
		{logSyslog, map[string]string{"cache-compress": "true"}, logBounds{size: 20 << 20, files: 5, compress: true}},
		{logSyslog, map[string]string{"cache-disabled": "true"}, logBounds{size: 20 << 20, files: 5, unread: true}},
		{logJSONFile, map[string]string{"mode": "non-blocking"}, logBounds{size: 20 << 20, files: 5, buffer: 1 << 20}},
		{logNone, nil, logBounds{}},
	} {
		got, err := logLimits(container.LogConfig{Type: tc.driver, Config: tc.opts})
		if err != nil || got != tc.want {
			t.Errorf("%s %v: %+v, %v; want %+v", tc.driver, tc.opts, got, err, tc.want)
		}
	}
}

func TestLogExtra(t *testing.T) {
	rec := &record{
		ID: strings.Repeat("ab", 32), Name: "ship", ImageID: digest.FromString("image"),
		Config: &container.Config{
			Image: "busybox", Labels: map[string]string{"app": "x", "app.part": "y", "other": "z"},
			Env: []string{"PORT=80", "PORTS=", "SECRET=1"},
		},
		HostConfig: &container.HostConfig{},
	}
	for _, tc := range []struct {
		opts map[string]string
		want string
	}{
		{nil, ""},
		{map[string]string{"labels": "app,missing", "env": "PORT"}, `{"PORT":"80","app":"x"}`},
		{map[string]string{"labels-regex": "^app", "env-regex": "^PORT"}, `{"PORT":"80","PORTS":"","app":"x","app.part":"y"}`},
		{map[string]string{"tag": "{{.ImageName}}/{{.Name}}/{{.ID}} {{upper .DaemonName}}"}, `{"tag":"busybox/ship/abababababab BERTH"}`},
	} {
		rec.HostConfig.LogConfig = container.LogConfig{Type: logJSONFile, Config: tc.opts}
		if got, err := logExtra(rec); err != nil || got != tc.want {
			t.Errorf("%v: %s, %v; want %s", tc.opts, got, err, tc.want)
		}
	}
	if tag, err := sentTag(&record{ID: rec.ID, Config: rec.Config, HostConfig: &container.HostConfig{}}); err != nil || tag != "abababababab" {
		t.Errorf("tag without the option: %q, %v", tag, err)
	}
	for entry, want := range map[string]string{
		`{"log":"a\n","stream":"stdout","attrs":{"tag":"x y"},"time":"2023-11-14T22:13:20Z"}`:                                     "tag=x+y",
		`{"log":"a\n","stream":"stderr","attrs":{"k":"v","stream":"stdout","time":"2023-01-01"},"time":"2023-11-14T22:13:20.5Z"}`: "k=v,stream=stdout,time=2023-01-01",
		`{"log":"a\n","stream":"stderr","time":"2023-11-14T22:13:20.5Z"}`:                                                         "",
	} {
		e, err := decodeEntry([]byte(entry), nil)
		if err != nil || string(e.text) != "a\n" || detailsText(e.attrs) != want {
			t.Errorf("%s: %q %s, %v", entry, e.text, e.attrs, err)
		}
	}
}
