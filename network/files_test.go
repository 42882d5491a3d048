package network

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
)

func TestHostsFile(t *testing.T) {
	got, err := HostsFile{
		Hostname: "web", Domainname: "example.org",
		Addresses: []netip.Addr{netip.MustParseAddr("172.29.0.2")},
		Extra:     []string{"db:10.0.0.1", "six=2001:db8::1", "six2:[2001:db8::2]", "host.docker.internal:host-gateway"},
		Gateway:   netip.MustParseAddr("172.29.0.1"),
	}.Render()
	if err != nil {
		t.Fatal(err)
	}
	want := usualHosts + "10.0.0.1\tdb\n2001:db8::1\tsix\n2001:db8::2\tsix2\n172.29.0.1\thost.docker.internal\n" +
		"172.29.0.2\tweb.example.org web\n"
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got, err = HostsFile{Hostname: "h", Base: []byte("127.0.0.1 me"), Extra: []string{"a:1.2.3.4"}}.Render()
	if err != nil || string(got) != "127.0.0.1 me\n1.2.3.4\ta\n" {
		t.Errorf("on the host's network: %q, %v", got, err)
	}
	for _, e := range []string{"", "a", "a:", ":1.2.3.4", "a:b", "a b:1.2.3.4", "a\nb:1.2.3.4", "a:host-gateway"} {
		if _, err := (HostsFile{Extra: []string{e}}).Render(); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("extra %q: %v, want invalid", e, err)
		}
	}
}

func TestResolvFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	upstream := write("upstream", "nameserver 192.0.2.9\nsearch up.example\n")
	const none = "# The host has no name server that a container can reach; give one with --dns.\n"
	for _, c := range []struct {
		name, host, want string
		f                ResolvFile
	}{
		{"as the host's", "# c\nnameserver 10.0.0.1 # the router\n; c\ndomain old\nsearch a.example b.example\noptions ndots:2\noptions rotate\n",
			"nameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:2 rotate\n", ResolvFile{}},
		{"unreachable ones left out", "nameserver 127.0.0.1\nnameserver ::1\nnameserver fd00::1\nnameserver 10.0.0.1\n",
			"nameserver 10.0.0.1\n", ResolvFile{}},
		{"none but loopback", "nameserver 127.0.0.1\n", none, ResolvFile{}},
		{"systemd-resolved", "nameserver 127.0.0.53\noptions edns0\n", "nameserver 192.0.2.9\nsearch up.example\n", ResolvFile{}},
		{"on the host's network", "nameserver 127.0.0.53\noptions edns0\n", "nameserver 127.0.0.53\noptions edns0\n", ResolvFile{SharesHost: true}},
		{"asked for", "nameserver 10.0.0.1\nsearch a.example\noptions rotate\n", "nameserver 1.1.1.1\nnameserver ::1\nsearch z\noptions ndots:1\n",
			ResolvFile{DNS: []string{"1.1.1.1", "::1"}, Search: []string{"z"}, Options: []string{"ndots:1"}}},
		{"no search", "nameserver 10.0.0.1\nsearch a.example\n", "nameserver 10.0.0.1\n", ResolvFile{Search: []string{"."}}},
		{"empty", "", none, ResolvFile{}},
	} {
		c.f.HostFile, c.f.UpstreamFile = write("host", c.host), upstream
		got, err := c.f.Render()
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got\n%s\n%v, want\n%s", c.name, got, err, c.want)
		}
	}
	got, err := ResolvFile{HostFile: filepath.Join(dir, "missing")}.Render()
	if err != nil || string(got) != none {
		t.Errorf("no file: %q, %v", got, err)
	}
	if _, err := (ResolvFile{DNS: []string{"dns.example"}}).Render(); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "dns.example") {
		t.Errorf("invalid server: %v", err)
	}
}

func TestHostnameFile(t *testing.T) {
	if got := string(HostnameFile("web")); got != "web\n" {
		t.Errorf("got %q", got)
	}
}
