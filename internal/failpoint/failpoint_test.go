//go:build failpoint && linux

package failpoint

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const childEnv = "NOVA_FAILPOINT_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	Arm("there", 3)
	for i := range 5 {
		Hit("elsewhere")
		os.Stdout.WriteString(string(rune('0'+i)) + "\n")
		Hit("there")
	}
}

func child(t *testing.T) (*Child, *exec.Cmd, *bufio.Scanner) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	c, err := Start(cmd)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); c.Close() })
	name, err := c.Stopped(20 * time.Second)
	require.NoError(t, err)
	require.Equal(t, "there", name)
	lines := bufio.NewScanner(out)
	for i := range 3 { // it stands at its third coming
		require.True(t, lines.Scan())
		require.Equal(t, string(rune('0'+i)), lines.Text())
	}
	return c, cmd, lines
}

func TestAChildStopsAndGoesOn(t *testing.T) {
	c, cmd, lines := child(t)
	require.NoError(t, c.Continue())
	require.True(t, lines.Scan())
	require.True(t, lines.Scan())
	require.Equal(t, "4", lines.Text())
	require.False(t, lines.Scan())
	require.NoError(t, cmd.Wait())
}

func TestAChildWhoseParentIsGoneExits(t *testing.T) {
	c, cmd, lines := child(t)
	require.NoError(t, c.Close())
	require.False(t, lines.Scan())
	require.Error(t, cmd.Wait())
	require.Equal(t, 3, cmd.ProcessState.ExitCode())
}
