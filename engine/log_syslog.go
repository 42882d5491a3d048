package engine

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
)

var syslogOptions = []string{
	"syslog-address", "syslog-facility", "syslog-format",
	"syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify",
}

// syslogFacilities are the facilities by name, numbered from 0: RFC 5424,
// section 6.2.1, by the names of syslog(3).
var syslogFacilities = []string{
	"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
	"", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

// The schemes of syslog-address.
const (
	syslogUnix      = "unix"
	syslogDatagrams = "unixgram"
	syslogTLS       = "tcp+tls"
)

// syslogPaths is where a syslog daemon of this host listens.
var syslogPaths = []string{"/dev/log", "/var/run/syslog", "/var/run/log"}

// syslogConfig is what the options of the driver syslog say.
type syslogConfig struct {
	network  string // unix, unixgram, udp, tcp, tcp+tls; "": one of syslogPaths
	address  string // a path, or host:port
	facility int
	format   string
	tls      *tls.Config
}

// parseSyslog reads the options, and the certificates they name.
func parseSyslog(options map[string]string) (*syslogConfig, error) {
	c := &syslogConfig{facility: slices.Index(syslogFacilities, "daemon"), format: options["syslog-format"]}
	if s := options["syslog-address"]; s != "" {
		if err := c.parseAddress(s); err != nil {
			return nil, errdefs.WithHint(invalidf("invalid log option syslog-address=%s: %w", s, err),
				"give tcp://HOST[:PORT], tcp+tls://HOST[:PORT], udp://HOST[:PORT], unix://PATH or unixgram://PATH")
		}
	}
	if s := options["syslog-facility"]; s != "" {
		c.facility = slices.Index(syslogFacilities, s)
		if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < len(syslogFacilities) {
			c.facility = n
		}
		if c.facility < 0 {
			return nil, invalidf("invalid log option syslog-facility=%s: want a name such as daemon or local0, or a number", s)
		}
	}
	if !slices.Contains([]string{"", "rfc3164", "rfc5424", "rfc5424micro"}, c.format) {
		return nil, invalidf("invalid log option syslog-format=%s: want rfc3164, rfc5424 or rfc5424micro", c.format)
	}
	return c, c.parseTLS(options)
}

func (c *syslogConfig) parseAddress(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	c.network = u.Scheme
	switch u.Scheme {
	case syslogUnix, syslogDatagrams:
		if c.address = u.Path; c.address == "" || u.Host != "" {
			return errors.New("want an absolute path")
		}
		return nil
	case "udp", "tcp", syslogTLS:
	default:
		return fmt.Errorf("unknown scheme %q", u.Scheme)
	}
	if u.Hostname() == "" {
		return errors.New("no host")
	}
	c.address = net.JoinHostPort(u.Hostname(), firstNonEmpty(u.Port(), "514"))
	return nil
}

func (c *syslogConfig) parseTLS(options map[string]string) error {
	if c.network != syslogTLS {
		return nil
	}
	_, skip := options["syslog-tls-skip-verify"]
	c.tls = &tls.Config{InsecureSkipVerify: skip, MinVersion: tls.VersionTLS12}
	if ca := options["syslog-tls-ca-cert"]; ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return invalidf("log option syslog-tls-ca-cert: %w", err)
		}
		c.tls.RootCAs = x509.NewCertPool()
		if !c.tls.RootCAs.AppendCertsFromPEM(pem) {
			return invalidf("log option syslog-tls-ca-cert: %s has no certificate", ca)
		}
	}
	cert, key := options["syslog-tls-cert"], options["syslog-tls-key"]
	if cert == "" && key == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return invalidf("log options syslog-tls-cert and syslog-tls-key: %w", err)
	}
	c.tls.Certificates = []tls.Certificate{pair}
	return nil
}

// syslogSender sends entries to a syslog daemon.
type syslogSender struct {
	*syslogConfig
	tag, host string
	conn      net.Conn
	stream    bool // conn has no bounds of messages
}

func newSyslog(rec *record) (logSender, error) {
	c, err := parseSyslog(rec.HostConfig.LogConfig.Config)
	if err != nil {
		return nil, err
	}
	s := &syslogSender{syslogConfig: c}
	if s.tag, err = sentTag(rec); err != nil {
		return nil, err
	}
	s.host, err = os.Hostname()
	return s, err
}

func (s *syslogSender) send(ctx context.Context, e *logEntry) error {
	if s.conn == nil {
		if err := s.dial(ctx); err != nil {
			return err
		}
	}
	s.conn.SetWriteDeadline(time.Now().Add(sendMost))
	_, err := s.conn.Write(s.message(e))
	return err
}

func (s *syslogSender) close() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

func (s *syslogSender) dial(ctx context.Context) (err error) {
	d := &net.Dialer{Timeout: sendMost}
	switch s.network {
	case "":
		return s.dialLocal(ctx, d)
	case syslogUnix: // either kind of socket, as syslog(3)
		return s.dialEither(ctx, d, s.address)
	case syslogTLS:
		s.conn, err = (&tls.Dialer{NetDialer: d, Config: s.tls}).DialContext(ctx, "tcp", s.address)
	default:
		s.conn, err = d.DialContext(ctx, s.network, s.address)
	}
	s.stream = s.network == "tcp" || s.network == syslogTLS
	return err
}

func (s *syslogSender) dialLocal(ctx context.Context, d *net.Dialer) error {
	var errs []error
	for _, path := range syslogPaths {
		err := s.dialEither(ctx, d, path)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *syslogSender) dialEither(ctx context.Context, d *net.Dialer, path string) (err error) {
	if s.conn, err = d.DialContext(ctx, syslogDatagrams, path); err != nil {
		s.conn, err = d.DialContext(ctx, syslogUnix, path)
		s.stream = true
		return err
	}
	s.stream = false
	return nil
}

// message is an entry in the format asked for, framed where the connection has
// no bounds: by a newline, or by its length where RFC 5424 travels in TLS (RFC
// 5425). The shapes are those of Docker's driver.
func (s *syslogSender) message(e *logEntry) []byte {
	severity := severityInfo
	if e.stream == Stderr {
		severity = severityError
	}
	priority, pid := s.facility<<3|severity, os.Getpid()
	text := bytes.TrimSuffix(e.text, []byte{'\n'})
	var b []byte
	at := e.at
	switch s.format {
	case "":
		b = fmt.Appendf(b, "<%d>%s %s[%d]: %s", priority, at.Local().Format(time.Stamp), s.tag, pid, text)
	case "rfc3164":
		b = fmt.Appendf(b, "<%d>%s %s %s[%d]: %s", priority, at.Local().Format(time.Stamp), s.host, s.tag, pid, text)
	default:
		layout := time.RFC3339
		if s.format == "rfc5424micro" {
			layout = "2006-01-02T15:04:05.000000Z07:00"
		}
		b = fmt.Appendf(b, "<%d>1 %s %s %s %d %s - %s", priority, at.UTC().Format(layout), s.host, headerWord(s.tag), pid, headerWord(s.tag), text)
		if s.network == syslogTLS {
			return append(fmt.Appendf(nil, "%d ", len(b)), b...)
		}
	}
	if s.stream {
		b = append(b, '\n')
	}
	return b
}

// headerWord makes a word of RFC 5424's header: it has no blanks.
func headerWord(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
}
