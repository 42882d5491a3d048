package imports

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// eachFile calls f with every Go file of the module and its path in it.
func eachFile(t *testing.T, f func(path string, file *ast.File)) {
	t.Helper()
	root := filepath.Join("..", "..")
	set := token.NewFileSet()
	n := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		n++
		f(rel, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 100 {
		t.Fatalf("only %d Go files found", n)
	}
}

// What can break memory safety is seen in a list of files.
func TestUnsafeFilesSayItInTheirName(t *testing.T) {
	eachFile(t, func(path string, file *ast.File) {
		named := strings.HasSuffix(path, "_unsafe.go") || strings.HasSuffix(path, "_unsafe_test.go")
		imported := false
		for _, i := range file.Imports {
			imported = imported || i.Path.Value == `"unsafe"`
		}
		if imported && !named {
			t.Errorf("%s imports unsafe: its name must end in _unsafe.go", path)
		}
		if named && !imported {
			t.Errorf("%s does not import unsafe", path)
		}
	})
}

// The parts are built in order by main; nothing registers itself. One package is
// about what comes before main, and says why.
func TestNoInitFunctions(t *testing.T) {
	eachFile(t, func(path string, file *ast.File) {
		if path == "cmd/berth-oci/internal/early/early.go" {
			return
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", path)
			}
		}
	})
}
