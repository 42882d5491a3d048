package engine

import (
	"strings"

	"github.com/moby/moby/api/types/container"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the container's: Docker's defaults, overridden and completed
// by the config's. HOME is added by withHome.
func environment(cfg *container.Config) []string {
	env := []string{defaultPath, "HOSTNAME=" + cfg.Hostname}
	if cfg.Tty {
		env = append(env, "TERM=xterm")
	}
	return overrideEnv(env, cfg.Env)
}

// overrideEnv sets the variables of over in env. One without = is unset.
func overrideEnv(env, over []string) []string {
	at := make(map[string]int, len(env)+len(over))
	for i, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		at[k] = i
	}
	for _, kv := range over {
		k, _, set := strings.Cut(kv, "=")
		i, known := at[k]
		switch {
		case k == "":
		case !set && known:
			env[i] = ""
		case known:
			env[i] = kv
		case set:
			at[k] = len(env)
			env = append(env, kv)
		}
	}
	kept := env[:0]
	for _, kv := range env {
		if kv != "" {
			kept = append(kept, kv)
		}
	}
	return kept
}

// withHome adds HOME, the user's in the passwd file, when env has none.
func withHome(env []string, home string) []string {
	for _, kv := range env {
		if strings.HasPrefix(kv, "HOME=") {
			return env
		}
	}
	return append(env, "HOME="+firstNonEmpty(home, "/"))
}
