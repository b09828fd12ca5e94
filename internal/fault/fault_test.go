package fault_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/fault"
)

var ctx = context.Background()

// sentinels are all of them; the test below sees that none is missing.
var sentinels = map[string]error{
	"ErrFull": fault.ErrFull, "ErrEmpty": fault.ErrEmpty, "ErrClosed": fault.ErrClosed, "ErrCancelled": fault.ErrCancelled,
	"ErrPeerDead": fault.ErrPeerDead, "ErrAlreadyAttached": fault.ErrAlreadyAttached, "ErrNoSuchStream": fault.ErrNoSuchStream,
	"ErrBadHandle": fault.ErrBadHandle, "ErrStaleHandle": fault.ErrStaleHandle, "ErrOtherWorker": fault.ErrOtherWorker,
	"ErrTypeMismatch": fault.ErrTypeMismatch, "ErrTooManySenders": fault.ErrTooManySenders, "ErrLaneUnavailable": fault.ErrLaneUnavailable,
	"ErrFrameTooLarge": fault.ErrFrameTooLarge, "ErrTimeout": fault.ErrTimeout, "ErrCorrupt": fault.ErrCorrupt, "ErrLimit": fault.ErrLimit,
	"ErrTransport": fault.ErrTransport, "ErrFinalized": fault.ErrFinalized, "ErrMisuse": fault.ErrMisuse, "ErrDecode": fault.ErrDecode,
	"ErrConfig": fault.ErrConfig,
}

// local are those that no receiver answers an attach with.
var local = []string{"ErrFull", "ErrEmpty", "ErrPeerDead", "ErrFrameTooLarge", "ErrTransport", "ErrDecode", "ErrConfig"}

func TestListIsComplete(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "fault.go", nil, 0)
	require.NoError(t, err)
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			for _, name := range v.Names {
				if strings.HasPrefix(name.Name, "Err") {
					require.Contains(t, sentinels, name.Name)
				}
			}
		}
		return true
	})
	texts := map[string]bool{}
	for name, err := range sentinels {
		require.False(t, texts[err.Error()], "%s reads as another", name)
		texts[err.Error()] = true
	}
}

// An error that a handler answers is the same sentinel for the caller, over both
// transports, and no other.
func TestIdentityOverTheWire(t *testing.T) {
	for _, tr := range [][]control.Option{nil, {control.WithoutUnix(), control.WithTCP("127.0.0.1:0")}} {
		dir, err := os.MkdirTemp("", "nf")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		a, err := control.Listen(ctx, append(tr, control.WithDir(dir))...)
		require.NoError(t, err)
		defer a.Close()
		b, err := control.Listen(ctx, append(tr, control.WithDir(dir))...)
		require.NoError(t, err)
		defer b.Close()
		require.NoError(t, b.HandleInline("fail", func(_ context.Context, _ *control.Peer, m control.Message) (control.Message, error) {
			if string(m.Payload) == "reason" {
				return control.Message{}, fmt.Errorf("stream 7: %w", &fault.CancelError{Reason: "enough"})
			}
			return control.Message{}, fmt.Errorf("stream 7: %w: because", sentinels[string(m.Payload)])
		}))
		for name, sentinel := range sentinels {
			_, err := a.Call(ctx, b.WorkerID(), "fail", control.Message{Payload: []byte(name)})
			require.EqualError(t, err, fmt.Sprintf("stream 7: %v: because", sentinel))
			for _, l := range local {
				if l == name {
					sentinel = nil
				}
			}
			for other, e := range sentinels {
				require.Equal(t, e == sentinel, errors.Is(err, e), "%s, is it %s?", name, other)
			}
		}
		_, err = a.Call(ctx, b.WorkerID(), "fail", control.Message{Payload: []byte("reason")})
		require.ErrorIs(t, err, fault.ErrCancelled)
		require.ErrorContains(t, err, "enough")
	}
}

func TestCancelError(t *testing.T) {
	require.ErrorIs(t, &fault.CancelError{}, fault.ErrCancelled)
	require.NotErrorIs(t, &fault.CancelError{}, fault.ErrClosed)
	require.EqualError(t, &fault.CancelError{}, fault.ErrCancelled.Error())
	require.ErrorContains(t, &fault.CancelError{Reason: "enough"}, ": enough")
}
