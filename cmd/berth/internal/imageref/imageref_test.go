package imageref

import "testing"

func TestParse(t *testing.T) {
	for in, want := range map[string]Ref{
		"busybox":                        {Repo: "busybox"},
		"busybox:1":                      {Repo: "busybox", Tag: "1"},
		"docker.io/library/busybox:1":    {Repo: "busybox", Tag: "1"},
		"docker.io/me/busybox":           {Repo: "me/busybox"},
		"library/a/b":                    {Repo: "library/a/b"},
		"localhost:5000/a/b":             {Repo: "localhost:5000/a/b"},
		"localhost:5000/a/b:c@sha256:00": {Repo: "localhost:5000/a/b", Tag: "c", Digest: "sha256:00"},
		"a@sha256:00":                    {Repo: "a", Digest: "sha256:00"},
		"127.0.0.1:5000/library/x":       {Repo: "127.0.0.1:5000/library/x"},
	} {
		if got := Parse(in); got != want {
			t.Errorf("Parse(%q) = %+v, want %+v", in, got, want)
		}
	}
	for _, s := range []string{"a", "a:b", "h:1/a:b@sha256:00"} {
		if got := Parse(s).String(); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
	if v := Parse("a:b@sha256:00").Version(); v != "sha256:00" {
		t.Errorf("version %q", v)
	}
}
