package novastream

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/listing"
)

// What makes a point, and the import that it needs.
var (
	pointForm   = regexp.MustCompile(`\t+if failpoint\.On[^\n]*\{\n\t+failpoint\.Hit\([^\n]*\)\n\t+\}\n`)
	pointImport = regexp.MustCompile(`\t"[^"\n]*/internal/failpoint"\n`)
)

// In a build without the tag, the rings and what users' code makes of them have
// the very instructions that they would have if no point had ever been written.
func TestFailpointsLeaveNoInstruction(t *testing.T) {
	if failpoint.On {
		t.Skip("this build has the points")
	}
	files, err := filepath.Glob("ring/*.go")
	require.NoError(t, err)
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	points := 0
	blank := func(s string) string { return strings.Repeat("\n", strings.Count(s, "\n")) } // lines keep their numbers
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		without := pointForm.ReplaceAllStringFunc(string(b), func(p string) string { points++; return blank(p) })
		without = pointImport.ReplaceAllStringFunc(without, blank)
		if without == string(b) {
			continue
		}
		require.NotContains(t, without, "failpoint.", "a point of another form in %s", f)
		name, err := filepath.Abs(f)
		require.NoError(t, err)
		overlay.Replace[name] = filepath.Join(dir, filepath.Base(f))
		require.NoError(t, os.WriteFile(overlay.Replace[name], []byte(without), 0o600))
	}
	require.Greater(t, points, 30)
	b, err := json.Marshal(overlay)
	require.NoError(t, err)
	list := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(list, b, 0o600))
	for _, path := range []string{"./ring", "./ring/internal/probe", "./internal/probe"} {
		with, err := listing.Of(path)
		require.NoError(t, err)
		without, err := listing.Of(path, "-overlay="+list)
		require.NoError(t, err)
		require.Equal(t, len(without), len(with), path)
		require.Greater(t, len(with), 5, path)
		for name, body := range without {
			require.True(t, body == with[name], "%s: the points have changed %s", path, name)
		}
	}
}
