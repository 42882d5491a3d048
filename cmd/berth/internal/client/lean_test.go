package client

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// fill gives every field below v a value that is not zero.
func fill(v reflect.Value) {
	if v.Type() == reflect.TypeFor[network.HardwareAddr]() {
		v.SetBytes([]byte{2, 66, 1, 2, 3, 4})
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(8)
	case reflect.String:
		v.SetString("a \"quoted\" \\ <text>\n\tü\u2028")
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		switch v.Interface().(type) {
		case netip.Addr:
			v.Set(reflect.ValueOf(netip.MustParseAddr("10.1.2.3")))
			return
		case network.Port:
			v.Set(reflect.ValueOf(network.MustParsePort("80/udp")))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	}
}

// TestLean: what an engine decodes is what encoding/json would have sent, for
// requests with every field set, with none, and with empty lists and maps.
func TestLean(t *testing.T) {
	full := &container.CreateRequest{}
	fill(reflect.ValueOf(full).Elem())
	zero, timeout := int64(0), 0
	values := []any{
		full, &container.CreateRequest{}, &container.CreateRequest{HostConfig: &container.HostConfig{}},
		&container.CreateRequest{
			Config: &container.Config{
				Image: "busybox", Cmd: []string{"sh", "-c", "echo \x00\xff"}, Entrypoint: []string{""}, StopTimeout: &timeout,
				Volumes: map[string]struct{}{"/b": {}, "/a": {}}, ExposedPorts: network.PortSet{network.MustParsePort("1/tcp"): {}},
				Healthcheck: &container.HealthConfig{Test: []string{"NONE"}, Interval: time.Second},
			},
			HostConfig: &container.HostConfig{
				MaskedPaths: []string{}, ConsoleSize: [2]uint{0, 80}, DNS: []netip.Addr{netip.MustParseAddr("::1")},
				PortBindings: network.PortMap{network.MustParsePort("1/tcp"): {{HostPort: "1"}}, network.MustParsePort("2/tcp"): nil},
				Mounts:       []mount.Mount{{Type: mount.TypeBind, BindOptions: &mount.BindOptions{}}},
				Resources: container.Resources{
					PidsLimit: &zero, Ulimits: []*units.Ulimit{{Name: "core"}},
					BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/dev/x"}},
				},
			},
			NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
				"x": {MacAddress: network.HardwareAddr{1, 2, 3, 4, 5, 6}}, "y": nil,
			}},
		},
		&container.UpdateConfig{Resources: container.Resources{Memory: 1}},
		&container.ExecCreateRequest{Cmd: []string{"a"}, ConsoleSize: &[2]uint{1, 2}},
		&container.ExecStartRequest{Detach: true},
	}
	for _, v := range values {
		short, err := lean(v)
		if err != nil {
			t.Fatal(err)
		}
		long, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got, want := reflect.New(reflect.TypeOf(v).Elem()).Interface(), reflect.New(reflect.TypeOf(v).Elem()).Interface()
		if err := json.Unmarshal(short, got); err != nil {
			t.Fatalf("%v: %s", err, short)
		}
		if err := json.Unmarshal(long, want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("an engine reads\n%s\ndifferently from\n%s", short, long)
		}
	}
}
