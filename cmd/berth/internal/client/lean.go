package client

import (
	"encoding"
	"encoding/json"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// lean encodes a request as JSON, leaving out every field of a struct that is
// zero: an engine takes that as the same. encoding/json would first compile an
// encoder for each of the hundred types a container's request is made of,
// which takes half a millisecond, for one use; this walks the value.
//
// It knows what the API's request types are made of. A type with a JSON
// encoding of its own is left to encoding/json.
func lean(v any) ([]byte, error) { return appendLean(nil, reflect.ValueOf(v)) }

func appendLean(b []byte, v reflect.Value) ([]byte, error) {
	if !v.IsValid() {
		return append(b, "null"...), nil
	}
	if v.Kind() != reflect.Pointer || !v.IsNil() {
		switch m := v.Interface().(type) {
		case json.Marshaler:
			return appendStandard(b, m)
		case encoding.TextMarshaler:
			text, err := m.MarshalText()
			return appendString(b, string(text)), err
		}
	}
	switch v.Kind() {
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case reflect.String:
		return appendString(b, v.String()), nil
	case reflect.Pointer, reflect.Interface:
		return appendLean(b, v.Elem())
	case reflect.Struct:
		return appendStruct(b, v)
	case reflect.Slice, reflect.Array:
		return appendList(b, v)
	case reflect.Map:
		return appendMap(b, v)
	}
	return appendStandard(b, v.Interface())
}

func appendStandard(b []byte, v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return append(b, text...), err
}

func appendStruct(b []byte, v reflect.Value) ([]byte, error) {
	b, _, err := appendFields(append(b, '{'), v, true)
	return append(b, '}'), err
}

// appendFields writes a struct's fields; first tells that none precedes them.
func appendFields(b []byte, v reflect.Value, first bool) ([]byte, bool, error) {
	t := v.Type()
	for i := range t.NumField() {
		field, value := t.Field(i), v.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if value.IsZero() || !field.IsExported() || name == "-" || strings.Contains(options, "omitempty") && empty(value) {
			continue
		}
		var err error
		if embedded := reflect.Indirect(value); field.Anonymous && name == "" && embedded.Kind() == reflect.Struct {
			if b, first, err = appendFields(b, embedded, first); err != nil {
				return b, first, err
			}
			continue
		}
		if name == "" {
			name = field.Name
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendString(b, name), ':')
		if b, err = appendLean(b, value); err != nil {
			return b, first, err
		}
	}
	return b, first, nil
}

func empty(v reflect.Value) bool {
	return (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0
}

func appendList(b []byte, v reflect.Value) ([]byte, error) {
	if v.Kind() == reflect.Slice && (v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8) {
		return appendStandard(b, v.Interface()) // null, or bytes in base64
	}
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendLean(b, v.Index(i)); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

func appendMap(b []byte, v reflect.Value) ([]byte, error) {
	if v.IsNil() {
		return append(b, "null"...), nil
	}
	values := make(map[string]reflect.Value, v.Len())
	names := make([]string, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		name := it.Key().String()
		if m, ok := it.Key().Interface().(encoding.TextMarshaler); ok {
			text, err := m.MarshalText()
			if err != nil {
				return b, err
			}
			name = string(text)
		}
		names = append(names, name)
		values[name] = it.Value()
	}
	sort.Strings(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendLean(append(appendString(b, name), ':'), values[name]); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

// appendString writes a JSON string (RFC 8259 section 7).
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			text, _ := json.Marshal(s) // a string cannot fail
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
