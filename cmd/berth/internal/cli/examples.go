package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// withExamples gives a command and those below it their examples, which help
// and the manual pages show. name is the command's path without berth. A verb
// below a noun that is a command of its own, too, has that one's.
func withExamples(cmd *cobra.Command, name string) *cobra.Command {
	text := examples(name)
	if text == "" {
		if noun, verb, ok := strings.Cut(name, " "); ok {
			text = examples(plainName(noun, verb))
		}
	}
	if text != "" {
		cmd.Example = "  berth " + strings.ReplaceAll(text, "\n", "\n  berth ")
	}
	for _, sub := range cmd.Commands() {
		withExamples(sub, name+" "+sub.Name())
	}
	return cmd
}

// plainName is what a noun's verb is called without its noun.
func plainName(noun, verb string) string {
	switch noun + " " + verb {
	case "container ls":
		return "ps"
	case "image ls":
		return "images"
	case "image rm":
		return "rmi"
	}
	return verb
}

// examples are a command's, a line each. It is a switch and not a map, for a map
// would be made at every start.
func examples(name string) string {
	switch name {
	case "run":
		return `run --rm -it debian
run -d --name web -p 127.0.0.1:8080:80 --memory 256m --cpus 0.5 nginx`
	case "exec":
		return `exec -it web sh`
	case "ps":
		return `ps -a
ps --filter status=exited --format '{{.Names}}: {{.Status}}'`
	case "pull":
		return `pull debian:12`
	case "push":
		return `push registry.example:5000/app:1.0`
	case "images":
		return `images --filter dangling=true`
	case "version":
		return `version --format json`
	case "info":
		return `info -f '{{.CgroupVersion}}'`
	case "login":
		return `login registry.example:5000`
	case "logout":
		return `logout registry.example:5000`
	case "attach":
		return `attach --detach-keys ctrl-x,x web`
	case "commit":
		return `commit -c 'CMD ["httpd", "-f"]' web web:configured`
	case "create":
		return `create --name later -v data:/data debian`
	case "events":
		return `events --since 10m --filter type=container`
	case "explain":
		return `explain web
explain -f '{{.Ending.Cause}}' web
explain --program web`
	case "export":
		return `export -o web.tar web`
	case "history":
		return `history --no-trunc debian`
	case "import":
		return `import -c 'CMD ["sh"]' rootfs.tar mine:1.0`
	case "inspect":
		return `inspect -f '{{.State.Pid}}' web`
	case "kill":
		return `kill -s HUP web`
	case "load":
		return `load -i images.tar`
	case "logs":
		return `logs -f --tail 20 web
logs --since 10m web`
	case "pause":
		return `pause web`
	case "port":
		return `port web 80`
	case "rename":
		return `rename web old-web`
	case "restart":
		return `restart -t 5 web`
	case "rm":
		return `rm -f web`
	case "rmi":
		return `rmi debian:12`
	case "save":
		return `save -o images.tar debian busybox`
	case "start":
		return `start -ai later`
	case "stats":
		return `stats --no-stream`
	case "stop":
		return `stop -t 5 web`
	case "tag":
		return `tag debian registry.example:5000/debian:mine`
	case "top":
		return `top
top web -o pid,comm`
	case "unpause":
		return `unpause web`
	case "update":
		return `update --memory 512m --memory-swap 512m web`
	case "wait":
		return `wait web`
	case "cp":
		return `cp web:/etc/hosts .
cp index.html web:/srv/`
	case "diff":
		return `diff web`
	case "container":
		return `container ls -a`
	case "image":
		return `image ls`
	case "network":
		return `network ls`
	case "system":
		return `system df`
	case "volume":
		return `volume ls`
	case "network ls":
		return `network ls --filter driver=bridge`
	case "system ops":
		return `system ops`
	case "system cancel":
		return `system cancel 3`
	case "network prune":
		return `network prune -f`
	case "network inspect":
		return `network inspect bridge`
	case "system df":
		return `system df -v`
	case "system prune":
		return `system prune -a`
	case "system check":
		return `system check --repair`
	case "container prune":
		return `container prune -f`
	case "image prune":
		return `image prune -a`
	case "volume ls":
		return `volume ls -q`
	case "volume create":
		return `volume create data`
	case "volume inspect":
		return `volume inspect data`
	case "volume rm":
		return `volume rm data`
	case "volume prune":
		return `volume prune -a`
	}
	return ""
}
