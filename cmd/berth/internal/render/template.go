// Package render prints what an engine tells: tables, Go templates and JSON,
// with the columns, fields and words of the docker command.
package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode/utf8"
)

// Header names the columns of a table: field → heading.
type Header map[string]string

// Label is the heading of a label's column ({{.Label "a.b.c"}}): its last part.
func (Header) Label(name string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.NewReplacer("-", " ", "_", " ").Replace(last)
}

// Rows prints rows in a format as --format takes it: empty or "table" for the
// table of template def, "table TEMPLATE", "json" (one object a line) or a
// template that is applied to each row.
func Rows[T any](w io.Writer, format, def string, header Header, rows []T) error {
	text, table := rowTemplate(format, def)
	tmpl, err := parse(text)
	if err != nil {
		return err
	}
	if len(rows) == 0 { // a mistake in the template is one without rows as well
		var zero T
		if err := execute(io.Discard, tmpl, zero); err != nil {
			return err
		}
	}
	if !table {
		var b bytes.Buffer
		for _, row := range rows {
			if err := execute(&b, tmpl, row); err != nil {
				return err
			}
			b.WriteByte('\n')
		}
		_, err := w.Write(b.Bytes())
		return err
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if err := tmpl.Funcs(headerFuncs()).Execute(tw, header); err != nil {
		return templateError(err)
	}
	tmpl.Funcs(funcs())
	for _, row := range rows {
		tw.Write([]byte("\n"))
		if err := execute(tw, tmpl, row); err != nil {
			return err
		}
	}
	tw.Write([]byte("\n"))
	return tw.Flush()
}

// rowTemplate is the template of a --format value and whether it is a table's.
func rowTemplate(format, def string) (text string, table bool) {
	switch rest, isTable := strings.CutPrefix(format, "table"); {
	case format == "json":
		return "{{json .}}", false
	case format == "" || isTable && strings.TrimSpace(rest) == "":
		return def, true
	case isTable:
		return unescape(strings.TrimSpace(rest)), true
	}
	return unescape(format), false
}

// unescape lets people write \t and \n in a shell's single quotes.
func unescape(s string) string { return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s) }

// IsJSON and IsTable tell kinds of --format values apart.
func IsJSON(format string) bool { return format == "json" }

// IsTable tells whether a --format value asks for a table.
func IsTable(format string) bool { return format == "" || strings.HasPrefix(format, "table") }

// One prints a single value by a template ("json" for JSON) and a line end.
func One(w io.Writer, format string, v any) error {
	if format == "json" {
		format = "{{json .}}"
	}
	tmpl, err := parse(unescape(format))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := execute(&b, tmpl, v); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

func parse(text string) (*template.Template, error) {
	tmpl, err := template.New("").Funcs(funcs()).Parse(text)
	if err != nil {
		return nil, templateError(err)
	}
	return tmpl, nil
}

func execute(w io.Writer, tmpl *template.Template, v any) error {
	if err := tmpl.Execute(w, v); err != nil {
		return templateError(err)
	}
	return nil
}

func templateError(err error) error {
	return fmt.Errorf("template parsing error: %w", err)
}

// funcs are the functions templates have beyond Go's own.
func funcs() template.FuncMap {
	return template.FuncMap{
		"json":     toJSON,
		"split":    strings.Split,
		"join":     join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
		"println":  fmt.Sprintln,
	}
}

// headerFuncs are the functions while the headings are printed: those that
// would change a heading leave it alone.
func headerFuncs() template.FuncMap {
	same := func(v any, _ ...any) any { return v }
	return template.FuncMap{
		"json": same, "title": same, "lower": same, "upper": same, "truncate": same,
		"join":  same,
		"split": same,
	}
}

func toJSON(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// join joins a list of strings or of anything.
func join(list any, sep string) (string, error) {
	switch list := list.(type) {
	case []string:
		return strings.Join(list, sep), nil
	case []any:
		texts := make([]string, len(list))
		for i, v := range list {
			texts[i] = fmt.Sprint(v)
		}
		return strings.Join(texts, sep), nil
	}
	return "", fmt.Errorf("join wants a list, not %T", list)
}

// title writes each word's first letter large.
func title(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		r, n := utf8.DecodeRuneInString(w)
		words[i] = strings.ToUpper(string(r)) + w[n:]
	}
	return strings.Join(words, " ")
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
}

func truncate(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n])
	}
	return s
}

// Ellipsis shortens s to n characters, the last of which then is an ellipsis.
func Ellipsis(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// ShortID is the first 12 hexadecimal digits of an id.
func ShortID(id string) string {
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		hex = id
	}
	if len(hex) > 12 {
		hex = hex[:12]
	}
	return hex
}

// OneStrict is One for decoded JSON: a field that is not there is an error.
func OneStrict(w io.Writer, format string, v any) error {
	tmpl, err := parse(unescape(format))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := execute(&b, tmpl.Option("missingkey=error"), v); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}
