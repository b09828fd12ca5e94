package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// TestFailure: an error that another process has had is the same one here, and no other.
func TestFailure(t *testing.T) {
	there := fmt.Errorf("attach: %w, %w, %w", &novastream.CancelError{Reason: "enough"},
		&novastream.LostError{Slots: 7}, &novastream.TimeoutError{What: "silent", After: time.Second})
	b, err := json.Marshal(failureOf(there))
	require.NoError(t, err)
	var f *Failure
	require.NoError(t, json.Unmarshal(b, &f))
	err = f.err()
	require.EqualError(t, err, there.Error())
	require.ErrorIs(t, err, novastream.ErrCancelled)
	require.ErrorIs(t, err, novastream.ErrTimeout)
	require.NotErrorIs(t, err, novastream.ErrPeerDead)
	var cancel *novastream.CancelError
	require.ErrorAs(t, err, &cancel)
	require.Equal(t, "enough", cancel.Reason)
	var lost *novastream.LostError
	require.ErrorAs(t, err, &lost)
	require.Equal(t, uint64(7), lost.Slots)
	var late *novastream.TimeoutError
	require.ErrorAs(t, err, &late)
	require.Equal(t, time.Second, late.After)

	for name, sentinel := range sentinels {
		require.Contains(t, failureOf(fmt.Errorf("wrapped: %w", sentinel)).Names, name)
		require.ErrorIs(t, &Failure{Names: []string{name}}, sentinel)
	}
	require.NoError(t, failureOf(nil).err())
	require.Equal(t, "PeerDead", verdict(fmt.Errorf("sent: %w", novastream.ErrPeerDead)))
	require.Equal(t, "context.Canceled", verdict(context.Canceled))
}
