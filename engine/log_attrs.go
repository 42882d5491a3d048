package engine

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"text/template"
)

// logAbout is what a tag's template can name, as with Docker.
type logAbout struct{ rec *record }

func (a logAbout) ID() string          { return short(a.rec.ID) }
func (a logAbout) FullID() string      { return a.rec.ID }
func (a logAbout) Name() string        { return a.rec.Name }
func (a logAbout) ImageID() string     { return short(a.rec.ImageID.Encoded()) }
func (a logAbout) ImageFullID() string { return a.rec.ImageID.String() }
func (a logAbout) ImageName() string   { return a.rec.Config.Image }
func (a logAbout) DaemonName() string  { return "berth" }
func (a logAbout) Command() string     { return commandText(a.rec) }

// ExtraAttributes are the attributes that the options ask for.
func (a logAbout) ExtraAttributes() map[string]string { return logAttributes(a.rec) }

var tagFunctions = template.FuncMap{
	"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	},
	"split": strings.Split, "join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper,
	"truncate": func(s string, n int) string { return s[:min(max(n, 0), len(s))] },
}

// logTag is what the option tag makes of a container; "" without the option.
func logTag(rec *record) (string, error) {
	text := rec.HostConfig.LogConfig.Config["tag"]
	if text == "" {
		return "", nil
	}
	t, err := template.New("tag").Funcs(tagFunctions).Parse(text)
	var b bytes.Buffer
	if err == nil && rec.ID != "" {
		err = t.Execute(&b, logAbout{rec})
	}
	if err != nil {
		return "", invalidf("invalid log option tag=%s: %w", text, err)
	}
	return b.String(), nil
}

// sentTag is the tag of entries that are sent: the short id without the option.
func sentTag(rec *record) (string, error) {
	tag, err := logTag(rec)
	return firstNonEmpty(tag, short(rec.ID)), err
}

// logAttributes are the labels and variables of a container that the options
// labels, labels-regex, env and env-regex name.
func logAttributes(rec *record) map[string]string {
	options := rec.HostConfig.LogConfig.Config
	attrs := map[string]string{}
	pick(attrs, rec.Config.Labels, options["labels"], options["labels-regex"])
	env := map[string]string{}
	for _, kv := range rec.Config.Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	pick(attrs, env, options["env"], options["env-regex"])
	return attrs
}

// pick copies the keys of a comma separated list, and those a pattern matches.
func pick(to, from map[string]string, keys, pattern string) {
	for _, k := range strings.Split(keys, ",") {
		if v, there := from[k]; there {
			to[k] = v
		}
	}
	re, err := regexp.Compile(pattern)
	if pattern == "" || err != nil { // checked at creation
		return
	}
	for k, v := range from {
		if re.MatchString(k) {
			to[k] = v
		}
	}
}

// logExtra is what is put into every entry on disk, as JSON; "" is nothing.
func logExtra(rec *record) (string, error) {
	attrs := logAttributes(rec)
	tag, err := logTag(rec)
	if tag != "" {
		attrs["tag"] = tag
	}
	if err != nil || len(attrs) == 0 {
		return "", err
	}
	b, err := json.Marshal(attrs)
	return string(b), err
}
