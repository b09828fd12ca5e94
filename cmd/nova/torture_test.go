//go:build linux

package main

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/torture"
)

// tortured runs a torture and reads its report.
func tortured(t *testing.T, args ...string) (rep torture.Report, told string, status int) {
	if testing.Short() {
		t.Skip("a torture starts and kills some hundred processes")
	}
	c := newTool(t)
	c.env = append(c.env, "TMPDIR="+c.dir)
	said, told, status := c.run(append([]string{"torture", "--json"}, args...)...)
	require.NoError(t, json.Unmarshal([]byte(said), &rep), "%s\n%s", said, told)
	left, err := filepath.Glob(filepath.Join(c.dir, "nv*"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.Empty(t, processesWith(t, c.dir), "processes are left")
	return rep, told, status
}

func TestTorture(t *testing.T) {
	rep, told, status := tortured(t, "--kills", "100")
	require.Zero(t, status, told)
	require.Zero(t, rep.Found)
	require.GreaterOrEqual(t, rep.Kills, 100)
	require.Len(t, rep.Rows, len(torture.Lanes))
	stops, notices := 0, 0
	for _, l := range rep.Rows {
		require.Positive(t, l.Frames, l.Lane)
		require.Equal(t, l.Lane == "local" || l.Lane == "local-onering", l.Kills == 0, l.Lane)
		stops += l.Stops
		notices += l.Notices
	}
	require.Positive(t, stops)
	require.Positive(t, notices)
}

// What senders do wrong on purpose is found, named, and told how to be run again.
func TestTortureFinds(t *testing.T) {
	for what, count := range map[string]func(torture.Row) int{
		torture.SabotageLoss:    func(r torture.Row) int { return r.Lost },
		torture.SabotageTail:    func(r torture.Row) int { return r.Lost },
		torture.SabotageDouble:  func(r torture.Row) int { return r.Doubled },
		torture.SabotageReorder: func(r torture.Row) int { return r.Reordered },
		torture.SabotageTear:    func(r torture.Row) int { return r.Torn },
		torture.SabotageEnd:     func(r torture.Row) int { return r.WrongEnds },
		torture.SabotageLeak:    func(r torture.Row) int { return r.Left },
	} {
		t.Run(what, func(t *testing.T) {
			rep, told, status := tortured(t, "--lane", "shm", "--kills", "10", "--sabotage", what, "--seed", "5")
			require.Equal(t, exitFailed, status, told)
			require.Len(t, rep.Rows, 1)
			require.Positive(t, count(rep.Rows[0]), told)
			require.Contains(t, rep.Findings[0].Again, "nova torture --lane shm --seed 5")
			require.Contains(t, told, rep.Findings[0].Again)
		})
	}
}

func TestTortureUsage(t *testing.T) {
	c := newTool(t)
	for _, args := range [][]string{{"--episode", "3"}, {"--soak", "--kills", "3"}} {
		_, told, status := c.run(append([]string{"torture"}, args...)...)
		require.Equal(t, exitFailed, status)
		require.Contains(t, told, args[0])
	}
	_, _, status := c.run("torture", "--lane", "pigeon")
	require.Equal(t, exitUsage, status)
}
