package oci

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fill sets every field of a value to something that is not zero, so that a
// field ParseSpec forgets shows. Sections of other platforms stay empty.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			switch name := v.Type().Field(i).Name; {
			case depth == 1 && (name == "Solaris" || name == "Windows" || name == "VM" || name == "ZOS" || name == "FreeBSD"):
			default:
				fill(v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth+1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		value := reflect.New(v.Type().Elem()).Elem()
		fill(value, depth+1)
		v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), value)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	}
}

func TestParseSpecReadsEveryField(t *testing.T) {
	want := &specs.Spec{}
	fill(reflect.ValueOf(want).Elem(), 1)
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSpec(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(b) {
		t.Errorf("read as\n%s\nwant\n%s", again, b)
	}
}

// The hand-written reader must not leave to package encoding/json what all
// configurations have.
func TestReadSpecReadsItAllByHand(t *testing.T) {
	full := &specs.Spec{}
	fill(reflect.ValueOf(full).Elem(), 1)
	for _, s := range []*specs.Spec{full, DefaultSpec()} {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := readSpec(string(b)); !ok || !reflect.DeepEqual(got, s) {
			t.Errorf("%s\nis read as %+v (%v)", b, got, ok)
		}
	}
}

var configs = []string{
	`{"process":{"args":["a\"b","\u00e9\ud83d\ude00","é"],"env":[],"user":{"uid":4294967295}}}`,
	`{ "linux" : { "resources" : { "memory" : { "limit" : -1, "swappiness" : 60 , "disableOOMKiller":true } } } }`,
	`{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":18446744073709551615,"op":"SCMP_CMP_EQ"}]}]}}}`,
	`{"annotations":{"a":"b","a":"c"},"mounts":null,"process":null}`,
	`{"OCIVersion":"1.0.0"}`, `{"process":{"ARGS":["x"]}}`, `{"unknown":[1,{"a":"]"}],"hostname":"h"}`,
	`{"hostname":"a","hostname":"b"}`, `{"process":{"user":{"uid":4294967296}}}`, `{"process":{"user":{"uid":-1}}}`,
	`{"process":{"user":{"uid":1.0}}}`, `{"process":{"user":{"uid":01}}}`, `{"process":{"oomScoreAdj":- 1}}`,
	`{"process":{"oomScoreAdj":-0}}`, `{"process":{"terminal":"true"}}`, `{"process":{"terminal":tru}}`,
	`{"hooks":{"poststop":[{"path":"/x","timeout":3}]},"hostname":"h"}`, `{"hooks":null}`, `{"hooks":{"poststop":[}`,
	`{}`, ``, `{} x`, `[]`, `null`, `{"linux":{"devices":[{"path":"/dev/x","fileMode":438}]}`, `{"mounts":[{"destination":"/"},]}`,
	"{\"hostname\":\"a\nb\"}", "{\"hostname\":\"\xff\"}", `{"hostname":null}`, `{"linux":{"netDevices":{"eth0":{"name":"x"}},"timeOffsets":{"boottime":{"secs":1}}}}`,
}

// FuzzReadSpec holds the hand-written reader against package encoding/json: it
// gives up, or reads the same.
func FuzzReadSpec(f *testing.F) {
	for _, c := range configs {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := readSpec(text)
		if !ok {
			return
		}
		want := &specs.Spec{}
		if err := json.Unmarshal([]byte(text), want); err != nil {
			t.Fatalf("%q was read, and is wrong: %v", text, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q\nis read as %+v\nwant %+v", text, got, want)
		}
	})
}

func TestParseSpecErrors(t *testing.T) {
	for config, want := range map[string]string{
		`{`:                                  "config.json: unexpected end",
		`{"windows":{"layerFolders":["x"]}}`: "windows: not supported",
		`{"linux":{"resources":{"memory":{"limit":"x"}}}}`: "config.json: json: cannot unmarshal string into Go struct field",
		`{"linux":{"seccomp":7}}`:                          "linux.seccomp of type",
	} {
		if _, err := ParseSpec([]byte(config)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", config, err)
		}
	}
}
