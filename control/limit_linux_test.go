package control

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A process without room for the descriptors of a message loses that message,
// with an error that names the limit, and nothing else: the connection goes on,
// and each later message gets its own descriptors.
func TestNoRoomForDescriptors(t *testing.T) {
	_, b, p := connect(t, Unix)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	wfd := int(w.Fd())
	spare := make(chan int, 8)
	for range cap(spare) {
		d, err := syscall.Dup(wfd)
		require.NoError(t, err)
		spare <- d
	}
	require.NoError(t, b.HandleInline("give", func(context.Context, *Peer, Message) (Message, error) {
		return Message{FDs: []int{<-spare, <-spare}}, nil
	}))
	got := make(chan int, 1)
	require.NoError(t, b.HandleInline("take", func(_ context.Context, _ *Peer, m Message) (Message, error) {
		defer closeFDs(m.FDs)
		got <- len(m.FDs)
		return Message{}, nil
	}))
	require.NoError(t, b.HandleAMInline("drop", func(context.Context, *Peer, Message) { t.Error("served without its descriptors") }))
	before := descriptors(t)
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max}))
	_, giveErr := p.Call(ctx, "give", Message{})
	_, takeErr := p.Call(ctx, "take", Message{FDs: []int{wfd}})
	sendErr := p.Send(ctx, "drop", Message{FDs: []int{wfd}})
	require.NoError(t, b.Handle("echo", echo))
	_, echoErr := p.Call(ctx, "echo", Message{})
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old))
	for _, err := range []error{giveErr, takeErr} {
		require.ErrorIs(t, err, ErrLimit)
		require.ErrorContains(t, err, "RLIMIT_NOFILE")
	}
	require.NoError(t, sendErr)
	require.NoError(t, echoErr)
	_, err = p.Call(ctx, "take", Message{FDs: []int{wfd, wfd, wfd}})
	require.NoError(t, err)
	require.Equal(t, 3, <-got)
	m, err := p.Call(ctx, "give", Message{})
	require.NoError(t, err)
	require.Len(t, m.FDs, 2)
	closeFDs(m.FDs)
	settles(t, func() bool { return descriptors(t) <= before-4 })
}
