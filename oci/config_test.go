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

func TestParseSpecErrors(t *testing.T) {
	for config, want := range map[string]string{
		`{`:                                  "config.json: unexpected end",
		`{"windows":{"layerFolders":["x"]}}`: "windows: not supported",
		`{"linux":{"resources":{"memory":{"limit":"x"}}}}`: "config.json: linux.resources.memory: json: cannot unmarshal string",
		`{"linux":{"seccomp":7}}`:                          "config.json: linux.seccomp: json: cannot unmarshal number",
	} {
		if _, err := ParseSpec([]byte(config)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", config, err)
		}
	}
}
