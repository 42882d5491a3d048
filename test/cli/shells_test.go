package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/berth-containers/berth/test/typist"
)

// TestShells presses the tabulator in real shells: names of containers, images,
// networks, signals and options are completed there.
func TestShells(t *testing.T) {
	e := newEngine(t)
	e.importBusybox(t)
	e.ok(t, nil, "run", "-d", "--name", "runs-on", "busybox", "sleep", "1000")
	e.ok(t, nil, "create", "--name", "waits-there", "busybox")
	for _, shell := range []struct {
		name string
		args []string
		// files must be there, prepare loads the completion.
		files   []string
		prepare string
	}{
		{"bash", []string{"--norc", "--noprofile", "-i"}, []string{"/usr/share/bash-completion/bash_completion"},
			"source /usr/share/bash-completion/bash_completion; source <(berth completion bash); bind 'set bell-style none'"},
		{"zsh", []string{"-f", "-i"}, nil,
			"autoload -U compinit; compinit -u -d $HOME/.zcompdump; source <(berth completion zsh); compdef _berth berth"},
		{"fish", []string{"--no-config", "-i"}, nil, "berth completion fish | source"},
	} {
		t.Run(shell.name, func(t *testing.T) {
			path, err := exec.LookPath(shell.name)
			if err != nil {
				t.Skipf("needs %s: %v", shell.name, err)
			}
			for _, file := range shell.files {
				if _, err := os.Stat(file); err != nil {
					t.Skip(err)
				}
			}
			cmd := exec.Command(path, shell.args...)
			cmd.Env = append(e.env(), "TERM=xterm", "PS1=ready> ", "XDG_CONFIG_HOME="+filepath.Join(e.dir, "config"))
			p := typist.Sit(t, cmd)
			p.Types(shell.prepare + "; echo load''ed\r")
			p.Shows(`^loaded`)
			for _, try := range []struct{ typed, whole string }{
				{"berth stop ru", "berth stop runs-on"},
				{"berth start wa", "berth start waits-there"},
				{"berth rmi busy", "berth rmi busybox"},
				{"berth network inspect bri", "berth network inspect bridge"},
				{"berth kill --signal SIGWIN", "berth kill --signal SIGWINCH"},
				{"berth run --memory-swapp", "berth run --memory-swappiness"},
				{"berth unpa", "berth unpause"},
			} {
				p.Types(try.typed + "\t")
				p.Shows(try.whole)
				p.Types("\x15\r") // the line away, and a new prompt
			}
			p.Types("exit\r")
			p.Exits()
		})
	}
}
