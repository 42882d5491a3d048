package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var updateGolden = flag.Bool("update", false, "rewrite the golden files")

// specRecord is a container whose every part is known.
func specRecord(cfg *container.Config, hc *container.HostConfig) *record {
	if cfg.Hostname == "" {
		cfg.Hostname = "ship"
	}
	if hc.NetworkMode == "" {
		hc.NetworkMode = "bridge"
	}
	if hc.IpcMode == "" {
		hc.IpcMode = "private"
	}
	if hc.CgroupnsMode == "" {
		hc.CgroupnsMode = "private"
	}
	return &record{
		ID: strings.Repeat("0123456789abcdef", 4), Name: "ship", Created: time.Unix(0, 0), Config: cfg, HostConfig: hc,
		Path: "/bin/app", Args: []string{"--flag", "value"},
	}
}

func TestSpecGolden(t *testing.T) {
	mib := func(n int64) int64 { return n << 20 }
	pids := int64(100)
	umask := uint32(0o27)
	for _, tc := range []struct {
		name string
		cfg  *container.Config
		hc   *container.HostConfig
		set  func(*specSources)
	}{
		{"default", &container.Config{}, &container.HostConfig{}, func(in *specSources) {
			in.netns = "/run/berth/netns/x"
			in.etc = map[string]string{"hosts": "/c/hosts", "hostname": "/c/hostname", "resolv.conf": "/c/resolv.conf"}
		}},
		{"privileged-host", &container.Config{Tty: true}, &container.HostConfig{
			Privileged: true, NetworkMode: "host", PidMode: "host", IpcMode: "host", UTSMode: "host", CgroupnsMode: "host",
			ConsoleSize: [2]uint{24, 80},
		}, func(in *specSources) {
			in.shm = "/dev/shm"
			in.hostDevices = []specs.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232}}
		}},
		{"limits", &container.Config{Env: []string{"PATH=/app", "HOME"}, WorkingDir: "/srv", Domainname: "example.org"}, &container.HostConfig{
			ReadonlyRootfs: true, CapDrop: []string{"all"}, CapAdd: []string{"net_bind_service"}, ShmSize: mib(128), OomScoreAdj: 300,
			Sysctls: map[string]string{"net.core.somaxconn": "512", sysctlPorts: "1024"}, Umask: &umask,
			Tmpfs: map[string]string{"/run": "size=1m"}, Binds: nil, Annotations: map[string]string{"k": "v"},
			Resources: container.Resources{
				Memory: mib(256), MemorySwap: mib(512), MemoryReservation: mib(128), NanoCPUs: 1500000000, CPUShares: 512, CpusetCpus: "0-1",
				PidsLimit: &pids, BlkioWeight: 300, Ulimits: []*units.Ulimit{{Name: "nofile", Soft: 1024, Hard: 2048}},
				DeviceCgroupRules: []string{"c 13:* rw"},
			},
		}, func(in *specSources) {
			in.user = processUser{User: specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 2000}}, home: "/home/sailor"}
			in.sec.noNewPrivileges = true
			in.rec.Mounts = []mountPoint{
				{MountPoint: container.MountPoint{Type: "bind", Source: "/h", Destination: "/data", RW: false, Propagation: mount.PropagationRPrivate}},
				{MountPoint: container.MountPoint{Type: "bind", Source: "/s", Destination: "/shared", RW: true, Propagation: mount.PropagationRSlave}, NonRecursive: true},
			}
			in.devices = []device{{node: specs.LinuxDevice{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}, access: "rwm"}}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := &specSources{rec: specRecord(tc.cfg, tc.hc), host: testHost(), parent: "/berth", shmSize: mib(64), user: processUser{home: "/root"}}
			tc.set(in)
			spec, err := buildSpec(in)
			if err != nil {
				t.Fatal(err)
			}
			if sc := spec.Linux.Seccomp; sc != nil { // the profile is moby's, only that it is there is ours
				spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: sc.DefaultAction}
			}
			got, err := json.MarshalIndent(spec, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "spec-"+tc.name+".json")
			if *updateGolden {
				if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(append(got, '\n'), golden) {
				t.Errorf("spec differs from %s (see -update):\n%s", path, got)
			}
		})
	}
}

func TestCapabilities(t *testing.T) {
	h := testHost()
	for _, tc := range []struct {
		add, drop  []string
		privileged bool
		want       int
		has, lacks string
	}{
		{nil, nil, false, 14, "CAP_KILL", "CAP_NET_ADMIN"},
		{[]string{"net_admin"}, []string{"CAP_KILL"}, false, 14, "CAP_NET_ADMIN", "CAP_KILL"},
		{[]string{"ALL"}, []string{"sys_admin"}, false, 15, "CAP_NET_ADMIN", "CAP_SYS_ADMIN"},
		{[]string{"CHOWN"}, []string{"all"}, false, 1, "CAP_CHOWN", "CAP_KILL"},
		{nil, []string{"all"}, true, 16, "CAP_SYS_ADMIN", ""},
	} {
		caps, err := capabilities(h.caps, tc.add, tc.drop, tc.privileged)
		if err != nil || len(caps) != tc.want || !slices.Contains(caps, tc.has) || slices.Contains(caps, tc.lacks) {
			t.Errorf("+%v -%v: %v, %v", tc.add, tc.drop, caps, err)
		}
	}
	if _, err := capabilities(h.caps, []string{"sys_time"}, nil, false); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("capability the host cannot give: %v", err)
	}
}

func TestSecurityOptions(t *testing.T) {
	h := testHost()
	for _, tc := range []struct {
		opt string
		err error
	}{
		{"no-new-privileges", nil}, {"no-new-privileges:true", nil}, {"seccomp=unconfined", nil}, {"label=disable", nil},
		{`seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}`, nil},
		{"seccomp=/some/path.json", errdefs.ErrInvalid}, {"no-new-privileges=maybe", errdefs.ErrInvalid}, {"wrong", errdefs.ErrInvalid},
		{"apparmor=mine", errdefs.ErrUnsupported}, {"apparmor=unconfined", nil}, {"label=type:x", nil}, {"label=type", errdefs.ErrInvalid}, {"label=nope:x", errdefs.ErrInvalid},
		{"seccomp=builtin", nil}, {"writable-cgroups=true", nil}, {"writable-cgroups=x", errdefs.ErrInvalid},
	} {
		_, err := parseSecurityOpt([]string{tc.opt}, h)
		if !errors.Is(err, tc.err) || err != nil && tc.err == nil {
			t.Errorf("%s: %v, want %v", tc.opt, err, tc.err)
		}
	}
}

func TestSeccompProfileChoice(t *testing.T) {
	spec := capsSpec(defaultCaps)
	for _, tc := range []struct {
		sec        securityOptions
		privileged bool
		seccomp    bool
		want       specs.LinuxSeccompAction
	}{
		{securityOptions{}, false, true, specs.ActErrno},
		{securityOptions{}, true, true, ""},
		{securityOptions{}, false, false, ""},
		{securityOptions{seccomp: unconfined}, false, true, ""},
		{securityOptions{seccomp: `{"defaultAction":"SCMP_ACT_LOG"}`}, true, true, specs.ActLog},
	} {
		p, err := seccompProfile(spec, &tc.sec, tc.privileged, &hostFacts{seccomp: tc.seccomp})
		got := specs.LinuxSeccompAction("")
		if p != nil {
			got = p.DefaultAction
		}
		if err != nil || got != tc.want {
			t.Errorf("%+v privileged %v: %q, %v", tc.sec, tc.privileged, got, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	cfg := &container.Config{Hostname: "h", Tty: true, Env: []string{"PATH=/x", "TERM", "A=1", "A=2", "UNSET"}}
	got := withHome(environment(cfg), "/home/me")
	if want := []string{"PATH=/x", "HOSTNAME=h", "A=2", "HOME=/home/me"}; !slices.Equal(got, want) {
		t.Errorf("environment %q, want %q", got, want)
	}
	if got := withHome([]string{"HOME=/mine"}, "/x"); len(got) != 1 {
		t.Errorf("HOME was overridden: %q", got)
	}
}

func TestLookupUser(t *testing.T) {
	const passwd = "root:x:0:0::/root:/bin/sh\nsailor:x:1000:1000::/home/sailor:/bin/sh\n"
	const group = "root:x:0:\nsailor:x:1000:\ncrew:x:2000:sailor\ndeck:x:3000:\n"
	for _, tc := range []struct {
		name string
		add  []string
		want string
	}{
		{"", nil, "0:0 [0] /root"},
		{"sailor", nil, "1000:1000 [1000 2000] /home/sailor"},
		{"1000", nil, "1000:1000 [1000 2000] /home/sailor"},
		{"1234", nil, "1234:0 [0] "},
		{"1234:5678", nil, "1234:5678 [5678] "},
		{"sailor:deck", nil, "1000:3000 [3000] /home/sailor"},
		{"sailor", []string{"deck", "42"}, "1000:1000 [1000 2000 42 3000] /home/sailor"},
		{"pirate", nil, "unable to find user pirate: no matching entries in passwd file"},
		{"root:pirates", nil, "unable to find group pirates: no matching entries in group file"},
		{"root", nil, "0:0 [0] /root"},
		{"4294967296", nil, "uids and gids must be in range 0-2147483647"},
		{"root", []string{"pirates"}, "unable to find group pirates: no matching entries in group file"},
	} {
		u, err := lookupUser(tc.name, tc.add, strings.NewReader(passwd), strings.NewReader(group))
		got := ""
		if err != nil {
			got = strings.SplitN(err.Error(), "\n", 2)[0]
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("%s: error has no class: %v", tc.name, err)
			}
		} else {
			got = userText(u)
		}
		if !strings.HasPrefix(got, tc.want) {
			t.Errorf("%q +%v: %s, want %s", tc.name, tc.add, got, tc.want)
		}
	}
}

func userText(u processUser) string {
	data, _ := json.Marshal(u.AdditionalGids)
	return strings.ReplaceAll(strings.Join([]string{num(u.UID) + ":" + num(u.GID), string(data), u.home}, " "), ",", " ")
}

func num(v uint32) string { b, _ := json.Marshal(v); return string(b) }

// TestResolveUserStaysInRoot gives the container passwd files that lead out.
func TestResolveUserStaysInRoot(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("pirate:x:666:666::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "etc"))
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, target := range []string{outside, "../../../../../../.." + outside, "/proc/self/root" + outside} {
		link := filepath.Join(dir, "etc/passwd")
		os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if u, err := resolveUser(root, "pirate", nil); err == nil {
			t.Errorf("passwd -> %s: found %+v", target, u)
		}
	}
	os.Remove(filepath.Join(dir, "etc/passwd"))
	mkdir(t, filepath.Join(dir, "etc/passwd"))
	if _, err := resolveUser(root, "pirate", nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("passwd is a directory: %v", err)
	}
	for name, want := range map[string]string{"": "0:0 [0] ", "0": "0:0 [0] ", "7:8": "7:8 [8] "} {
		if u, err := resolveUser(root, name, nil); err != nil || !strings.HasPrefix(userText(u), want) {
			t.Errorf("passwd is a directory, user %q: %s, %v", name, userText(u), err)
		}
	}
	if _, err := resolveUser(root, "0", []string{"fleet"}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("passwd is a directory, group by name: %v", err)
	}
}

func TestHostsFile(t *testing.T) {
	in := &etcInput{cfg: &container.Config{Hostname: "ship", Domainname: "sea.example"}, hc: &container.HostConfig{
		NetworkMode: "bridge", ExtraHosts: []string{"db:10.0.0.9", "host=host-gateway", "six:fe80::1"},
	}}
	in.address, in.gateway = addr("10.1.0.2"), addr("10.1.0.1")
	data, err := in.hostsFile()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"127.0.0.1\tlocalhost\n", "10.0.0.9\tdb\n", "10.1.0.1\thost\n", "fe80::1\tsix\n", "10.1.0.2\tship.sea.example ship\n"} {
		if !strings.Contains(string(data), line) {
			t.Errorf("%q is missing in:\n%s", line, data)
		}
	}
	for _, bad := range []string{"nothing", "x:", ":1.2.3.4", "x:1.2.3", "a b:1.2.3.4"} {
		if _, _, err := splitExtraHost(bad); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestResolvFile(t *testing.T) {
	host := "# comment\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch a.example b.example\noptions ndots:2\nsortlist 1.2.3.4\n"
	for _, tc := range []struct {
		hc   container.HostConfig
		want string
	}{
		{container.HostConfig{NetworkMode: "bridge"}, "nameserver 9.9.9.9\nsearch a.example b.example\noptions ndots:2\nsortlist 1.2.3.4\n"},
		{container.HostConfig{NetworkMode: "host"}, host},
		{container.HostConfig{NetworkMode: "bridge", DNSSearch: []string{"."}, DNSOptions: []string{"rotate"}}, "nameserver 9.9.9.9\noptions rotate\nsortlist 1.2.3.4\n"},
	} {
		in := &etcInput{cfg: &container.Config{}, hc: &tc.hc, hostResolv: []byte(host)}
		if got := string(in.resolvFile()); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.hc.NetworkMode, got, tc.want)
		}
	}
	if !onlyStub([]byte("nameserver 127.0.0.53\n")) || onlyStub([]byte(host)) || onlyStub(nil) {
		t.Error("onlyStub is wrong")
	}
}

func TestDeviceRules(t *testing.T) {
	for rule, ok := range map[string]bool{"c 1:3 rwm": true, "b *:* r": true, "a *:* rwm": true, "c 1:3": false, "x 1:3 r": false, "c 1:3 rwx": false} {
		if _, err := parseDeviceRule(rule); (err == nil) != ok {
			t.Errorf("%s: %v", rule, err)
		}
	}
	list, err := resolveDevices([]container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/nil", CgroupPermissions: "r"}})
	if err != nil || len(list) != 1 || list[0].node.Path != "/dev/nil" || list[0].node.Minor != 3 || list[0].access != "r" {
		t.Errorf("devices %+v, %v", list, err)
	}
	for _, bad := range []container.DeviceMapping{{PathOnHost: "/etc/passwd"}, {PathOnHost: "/dev/none"}, {PathOnHost: "/dev/null", CgroupPermissions: "x"}} {
		if _, err := resolveDevices([]container.DeviceMapping{bad}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestDetachScanner(t *testing.T) {
	d, err := newDetachScanner("")
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, chunk := range []string{"a\x10", "\x10", "b\x10", "\x11never"} {
		out, done := d.scan([]byte(chunk))
		got = append(got, out...)
		if done != strings.Contains(chunk, "\x11") {
			t.Errorf("%q: done %v", chunk, done)
		}
	}
	if string(got) != "a\x10\x10b" {
		t.Errorf("passed on %q", got)
	}
	for keys, ok := range map[string]bool{"ctrl-a": true, "a,b,c": true, "ctrl-[": true, "ctrl-1": false, "alt-x": false, "a,,b": false} {
		if _, err := newDetachScanner(keys); (err == nil) != ok {
			t.Errorf("%s: %v", keys, err)
		}
	}
}
