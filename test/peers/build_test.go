//go:build peers

package peers

import (
	"os"
	"path/filepath"
	"testing"
)

// buildContext is a directory to build an image from.
func buildContext(t *testing.T) string {
	t.Helper()
	dir := openDir(t)
	const recipe = "FROM " + image + "\n" +
		"COPY greet /greet\n" +
		"RUN echo built by $(id -un) >/built && chmod 600 /built\n" +
		"USER 1000\n" +
		"RUN echo built by $(id -un) >/tmp/built\n"
	for name, text := range map[string]string{"Dockerfile": recipe, "greet": "ahoy\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// checkBuilt looks at what the build has made, by commands in a container of it.
func checkBuilt(t *testing.T, run func(args ...string) string) {
	t.Helper()
	const want = "ahoy\nbuilt by sailor\n600 root"
	if got := run("sh", "-c", "cat /greet /tmp/built; stat -c '%a %U' /built"); got != want {
		t.Errorf("the image has %q, want %q", got, want)
	}
}
