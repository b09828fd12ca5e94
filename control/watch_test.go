package control

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/control/internal/controlpb"
)

// mute is a connection that nothing comes from.
type mute struct{}

func (mute) send(context.Context, *controlpb.Envelope, []int) error { return nil }
func (mute) bulk(context.Context, *controlpb.Envelope) error        { return nil }
func (mute) drain()                                                 {}
func (mute) close()                                                 {}

// A process that was stopped itself, or did not get a processor, has heard nothing
// meanwhile and does not take its peers for silent.
func TestWatchDoesNotCountItsOwnStop(t *testing.T) {
	p := newPeer(&Node{started: time.Now().Add(-time.Hour)}, Unix, uuid.New())
	p.conn = mute{}
	defer p.watch.end()
	var told []time.Duration
	p.Watch(time.Minute, func(d time.Duration) { told = append(told, d) })
	now := time.Since(p.node.started)
	p.last.Store(int64(now - 20*time.Minute))
	p.watch.due = now - 20*time.Minute + 30*time.Second // the timer has fired so late
	p.watch.tick(p)
	require.Empty(t, told)

	now = time.Since(p.node.started)
	p.last.Store(int64(now - 61*time.Second))
	p.watch.due = now
	p.watch.tick(p)
	require.Len(t, told, 1)
	require.InDelta(t, 61, told[0].Seconds(), 1)
}
