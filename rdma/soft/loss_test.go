package soft

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// A request is lost when it is sent the second time, the one behind it the first
// time. The peer had the former and acknowledges it: the latter is still lost, and
// sent again when the timeout has passed.
func TestLostBehindAcknowledged(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	v := newVictim(t)
	require.NoError(t, v.qp.Close())
	v.drained(t)
	v.renew(t, ln.Addr().String())
	q := v.qp
	q.mu.Lock()
	q.opt.Timeout, q.opt.RetryCount = 200*time.Millisecond, 7
	q.mu.Unlock()
	post := func() {
		_, err := q.PostSend([]rdma.SendWR{{Op: rdma.OpWrite, Flags: rdma.Signaled}})
		require.NoError(t, err)
	}
	until := func(f func() bool) {
		require.Eventually(t, func() bool {
			q.mu.Lock()
			defer q.mu.Unlock()
			return f()
		}, 10*time.Second, time.Millisecond)
	}

	post()
	c, err := ln.Accept()
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	say := func(rp reply) {
		_, err := c.Write(rp.append(nil))
		require.NoError(t, err)
	}
	request := func() request {
		b := make([]byte, requestSize)
		_, err := io.ReadFull(c, b)
		require.NoError(t, err)
		m, err := parseRequest(b)
		require.NoError(t, err)
		return m
	}
	_, err = io.ReadFull(c, make([]byte, helloSize))
	require.NoError(t, err)
	say(reply{kind: nakSeq, psn: 0})
	require.Zero(t, request().psn)

	v.dev.Stall(true)
	v.dev.Lose(2) // half of it, so all, are requests
	post()
	say(reply{kind: nakSeq, psn: 0})
	until(func() bool { return q.sent == 0 })
	v.dev.Stall(false)
	until(func() bool { return q.sent == 2 })
	v.dev.Lose(0)
	say(reply{kind: ack, psn: 0})
	for request().psn != 1 { // a timeout that comes before the acknowledgement repeats 0
	}
	say(reply{kind: ack, psn: 1})
	for n := 0; n < 2; {
		require.NoError(t, v.cq.Wait(t.Context()))
		n += v.drained(t)
	}
}

// Going back leaves the timer on for what is lost further back, and does not go
// behind what is done.
func TestRewind(t *testing.T) {
	q := &qp{sq: make([]sendEntry, 8), sent: 4, tail: 4}
	q.opt.Timeout = time.Second
	q.lose(1, time.Now())
	q.rewind(2)
	require.EqualValues(t, 2, q.sent)
	require.False(t, q.deadline.IsZero())
	q.acked, q.sent = 3, 4
	q.rewind(2)
	require.EqualValues(t, 3, q.sent)
	require.True(t, q.deadline.IsZero())
}
