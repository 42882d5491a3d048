package imports

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// slow are what may take as long as somebody else likes: by what a method is called
// on, or by the function. Files of containers are opened by functions of the engine's
// own, which are found by what they call.
func slow(call *ast.CallExpr) bool {
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		on := ""
		switch x := f.X.(type) {
		case *ast.SelectorExpr: // e.keeper.start
			on = x.Sel.Name
		case *ast.Ident: // keeper.Connect
			on = x.Name
		}
		switch on {
		case "keeper":
			// The link's own lock, and what only looks at memory.
			return !slices.Contains([]string{"ProgramID", "Error", "Done", "Info"}, f.Sel.Name)
		case "images", "nets", "http":
			return true
		case "unix":
			return slices.Contains([]string{"Openat2", "Mount", "OpenTree", "Poll"}, f.Sel.Name)
		}
	}
	return false
}

// TestNoLockIsHeldOverSlowWork: the engine's mutexes guard memory. Who holds one asks
// neither the keeper nor a registry, nor opens files of a container, and calls no
// function of the engine that does. (What admits one change of a container at a time
// is no mutex: who waits for it can give up.)
func TestNoLockIsHeldOverSlowWork(t *testing.T) {
	p := parsePackage(t, "../../engine")
	sections := 0
	for _, fn := range p.functions {
		for _, held := range lockedCalls(fn.Body) {
			sections++
			for _, call := range held {
				if slow(call) || p.slow[calledName(call)] {
					t.Errorf("%s: called with a mutex held: %s", p.set.Position(call.Pos()), calledName(call))
				}
			}
		}
	}
	if sections < 50 {
		t.Errorf("found %d places that hold a mutex: does this test look at the right ones?", sections)
	}
}

// parsed are a package's functions, and which of their names lead to slow work. Names
// that several methods have count only where all of them do.
type parsed struct {
	set       *token.FileSet
	functions []*ast.FuncDecl
	slow      map[string]bool
}

func parsePackage(t *testing.T, dir string) *parsed {
	t.Helper()
	p := &parsed{set: token.NewFileSet(), slow: map[string]bool{}}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(dir, err)
	}
	byName := map[string][]*ast.FuncDecl{}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(p.set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				p.functions = append(p.functions, fn)
				byName[fn.Name.Name] = append(byName[fn.Name.Name], fn)
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for name, list := range byName {
			if p.slow[name] || !all(list, p.isSlow) {
				continue
			}
			p.slow[name], changed = true, true
		}
	}
	return p
}

func all(list []*ast.FuncDecl, is func(*ast.FuncDecl) bool) bool {
	return !slices.ContainsFunc(list, func(fn *ast.FuncDecl) bool { return !is(fn) })
}

// isSlow says whether a function does slow work itself, or calls one that does.
func (p *parsed) isSlow(fn *ast.FuncDecl) bool {
	return slices.ContainsFunc(calls(fn.Body), func(call *ast.CallExpr) bool { return slow(call) || p.slow[calledName(call)] })
}

// calls are those that happen where the node does: not in functions that it only
// makes, to be run later or beside it.
func calls(n ast.Node) (list []*ast.CallExpr) {
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit, *ast.GoStmt:
			return false
		case *ast.CallExpr:
			list = append(list, n)
		}
		return true
	})
	return list
}

// calledName is the name of the function that is called, "" when it has none.
func calledName(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

// lockedCalls are the calls between each Lock of a mutex and its Unlock in the same
// block, or with a deferred one the end of the block.
func lockedCalls(body *ast.BlockStmt) (sections [][]*ast.CallExpr) {
	ast.Inspect(body, func(n ast.Node) bool {
		block, ok := n.(*ast.BlockStmt)
		if !ok {
			return true
		}
		for i, s := range block.List {
			mutex, ok := mutexCall(s, "Lock", "RLock")
			if !ok {
				continue
			}
			var held []*ast.CallExpr
			for _, later := range block.List[i+1:] {
				if on, ok := mutexCall(later, "Unlock", "RUnlock"); ok && on == mutex {
					break
				}
				if _, deferred := later.(*ast.DeferStmt); !deferred {
					held = append(held, calls(later)...)
				}
			}
			sections = append(sections, held)
		}
		return true
	})
	return sections
}

// mutexCall tells whether a statement is a call like c.mu.Lock(), and of which mutex.
func mutexCall(s ast.Stmt, names ...string) (mutex string, ok bool) {
	e, ok := s.(*ast.ExprStmt)
	if !ok {
		return "", false
	}
	call, ok := e.X.(*ast.CallExpr)
	if !ok {
		return "", false
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains(names, method.Sel.Name) {
		return "", false
	}
	on, ok := method.X.(*ast.SelectorExpr)
	if !ok || on.Sel.Name != "mu" {
		return "", false
	}
	if x, ok := on.X.(*ast.Ident); ok {
		return x.Name + ".mu", true
	}
	return "mu", true
}
