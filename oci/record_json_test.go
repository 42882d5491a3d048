package oci

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// The record is written and read by hand: as package encoding/json would, and
// every field.
func TestRecordHasEveryField(t *testing.T) {
	full := record{}
	fill(reflect.ValueOf(&full.ID).Elem(), 2)
	v := reflect.ValueOf(&full).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Type != reflect.TypeFor[time.Time]() {
			fill(v.Field(i), 2)
		}
	}
	full.Created = time.Now().UTC()
	odd := full
	odd.Bundle = "/a\"b\\c\nd<é"
	for _, rec := range []record{full, odd, {}} {
		want, err := json.Marshal(&rec)
		if err != nil {
			t.Fatal(err)
		}
		got := rec.appendTo(nil)
		if rec.Cgroup.Dirs == nil { // written as an empty object
			rec.Cgroup.Dirs = map[string]string{}
			want, _ = json.Marshal(&rec)
		}
		if string(got) != string(want) {
			t.Errorf("written as\n%s\nwant\n%s", got, want)
		}
		r := &recordReader{jsonReader{text: string(got)}}
		if again := r.record(); !r.done() || !reflect.DeepEqual(again, rec) {
			t.Errorf("%s\nread as %+v", got, again)
		}
	}
}

func TestReadRecordLeavesTheRestToTheLibrary(t *testing.T) {
	rec, err := readRecord([]byte(`{"id":"x","later":[1],"created":"2026-01-02T03:04:05+01:00"}`))
	if err != nil || rec.ID != "x" || rec.Created.Unix() != 1767319445 {
		t.Errorf("%+v, %v", rec, err)
	}
	if _, err := readRecord([]byte(`{"id":"x"`)); err == nil {
		t.Error("half a record was read")
	}
}
