package crashtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every row of docs/crash.md has its test, and every test its row.
func TestEveryStateHasItsTest(t *testing.T) {
	page, err := os.ReadFile("../../docs/crash.md")
	require.NoError(t, err)
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(string(page), -1) {
		require.False(t, rows[m[1]], "two rows of %s", m[1])
		rows[m[1]] = true
	}
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	tests := map[string]bool{}
	for _, f := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		require.NoError(t, err)
		for _, d := range tree.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				if name, ok := strings.CutPrefix(fn.Name.Name, "TestCrash_"); ok {
					tests[name] = true
				}
			}
		}
	}
	require.Greater(t, len(tests), 50)
	for name := range tests {
		require.True(t, rows[name], "docs/crash.md has no row %s", name)
	}
	for name := range rows {
		require.True(t, tests[name], "there is no TestCrash_%s", name)
	}
}
