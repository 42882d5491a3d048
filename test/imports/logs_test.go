package imports

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// unnamed are the messages that concern no one container, or whose logger or other
// attribute names it.
func unnamed() []string {
	return []string{
		// engine: of itself, or of the keeper
		"memory is not watched any more", "remove what belongs to no container", "migrate state", "upgraded the keeper",
		"the keeper runs from another program than the one that is installed: berth system upgrade-keeper",
		"upgrade the keeper", "waiting for the keeper", "connection to the keeper has ended, connecting again", "events are not kept",
		"repair", // its object is "container web", say
		// keeper: of itself, or of a connection
		"upgrade", "panic", "took over", "end of an idle keeper", "request refused", "answer not sent", "accept",
		// keeper: of streams and logs, whose logger names the process
		"log is incomplete", "log entries are being lost", "log cannot be rotated", "log cannot be opened after rotation",
		// network: of the host
		"net.ipv4.ip_forward stays on: somebody else may need it",
	}
}

// TestLogsNameTheContainer: a line of the log about a container says about which, in
// an attribute one can look for.
func TestLogsNameTheContainer(t *testing.T) {
	allowed := map[string]bool{}
	for _, message := range unnamed() {
		allowed[message] = false
	}
	calls := 0
	for _, pkg := range []string{"engine", "keeper", "network"} {
		files, err := filepath.Glob(filepath.Join("../..", pkg, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(pkg, err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				calls += checkLogs(t, file, allowed)
			}
		}
	}
	if calls < 40 {
		t.Errorf("found %d calls that log: does this test look at the right ones?", calls)
	}
	for message, used := range allowed {
		if !used {
			t.Errorf("nothing logs %q: take it off the list", message)
		}
	}
}

// checkLogs looks at the calls of a file that log, and counts them.
func checkLogs(t *testing.T, path string, allowed map[string]bool) (calls int) {
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || !logs(call) {
			return true
		}
		calls++
		message := strings.Join(literals(call.Args[:1]), "") // "" when the program makes it up
		names := literals(call.Args[1:])
		if _, ok := allowed[message]; ok {
			allowed[message] = true
		} else if !slices.Contains(names, "container") && !slices.Contains(names, "process") {
			t.Errorf("%s: %q names no container: give it the attribute, or put it on this test's list", set.Position(call.Pos()), message)
		}
		return true
	})
	return calls
}

// logs says whether a call is one of a logger: by its name and by what it is called on.
func logs(call *ast.CallExpr) bool {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, method.Sel.Name) || len(call.Args) == 0 {
		return false
	}
	switch on := method.X.(type) {
	case *ast.SelectorExpr:
		return slices.Contains([]string{"log", "slog", "Log", "Logger"}, on.Sel.Name)
	case *ast.Ident:
		return slices.Contains([]string{"log", "slog", "logger"}, on.Name)
	}
	return false
}

// literals are the arguments that are strings in the source.
func literals(args []ast.Expr) (words []string) {
	for _, arg := range args {
		if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if word, err := strconv.Unquote(lit.Value); err == nil {
				words = append(words, word)
			}
		}
	}
	return words
}
