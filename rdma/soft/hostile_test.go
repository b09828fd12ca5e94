package soft

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// greeting is the hello with which the victim's peer is let in.
func (v *victim) greeting() hello {
	return hello{to: v.qp.num, from: v.remote.num, toToken: v.qp.token, fromToken: v.remote.qp, fromDevice: v.remote.dev}
}

// Who does not say the right hello is shown the door, and who does is served.
func TestHello(t *testing.T) {
	v := newVictim(t)
	for name, change := range map[string]func(h *hello){
		"right":           func(*hello) {},
		"no such number":  func(h *hello) { h.to++ },
		"wrong token":     func(h *hello) { h.toToken[3]++ },
		"another's token": func(h *hello) { h.fromToken[0]++ },
		"another number":  func(h *hello) { h.from++ },
		"another device":  func(h *hello) { h.fromDevice[15]++ },
	} {
		t.Run(name, func(t *testing.T) {
			h := v.greeting()
			change(&h)
			c, err := net.Dial("tcp", v.dev.addr)
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
			_, err = c.Write(h.append(nil))
			require.NoError(t, err)
			b := make([]byte, replySize)
			_, err = io.ReadFull(c, b)
			if name != "right" {
				require.ErrorIs(t, err, io.EOF)
				return
			}
			require.NoError(t, err)
			rp, err := parseReply(b)
			require.NoError(t, err)
			require.Equal(t, reply{kind: nakSeq, psn: 0}, rp)
		})
	}
	for _, garbage := range []string{"x", "GET / HTTP/1.1\r\n\r\n", string(make([]byte, 1000))} {
		c, err := net.Dial("tcp", v.dev.addr)
		require.NoError(t, err)
		c.Write([]byte(garbage))
		c.(*net.TCPConn).CloseWrite()
		require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		n, _ := io.Copy(io.Discard, c)
		require.Zero(t, n)
		c.Close()
	}
	require.Equal(t, rdma.RTS, v.qp.State())
}

// A peer that lies in its replies is BadResponse, one that says nothing, or hangs
// up, RetryExceeded.
func TestLyingPeer(t *testing.T) {
	right := reply{kind: nakSeq, psn: 0}
	type lie struct {
		answer  reply
		replies []reply
		want    rdma.Status
	}
	for name, l := range map[string]lie{
		"truth":                      {right, []reply{{kind: ack, psn: 0}}, rdma.Success},
		"ack of nothing":             {right, []reply{{kind: ack, psn: 5}}, rdma.BadResponse},
		"answer of no READ":          {right, []reply{{kind: readDone, psn: 0}}, rdma.BadResponse},
		"unknown kind":               {right, []reply{{kind: 77}}, rdma.BadResponse},
		"status that nobody gives":   {right, []reply{{kind: nakFatal, status: rdma.Flushed}}, rdma.BadResponse},
		"endless wait":               {right, []reply{{kind: nakRNR, value: 1 << 31}}, rdma.BadResponse},
		"expects the future":         {right, []reply{{kind: nakSeq, psn: 9}}, rdma.BadResponse},
		"greets with the future":     {reply{kind: nakSeq, psn: 9}, nil, rdma.BadResponse},
		"greets with an ack":         {reply{kind: ack}, nil, rdma.RetryExceeded},
		"refuses":                    {reply{kind: nakFatal, status: rdma.RemoteAccess}, nil, rdma.RemoteAccess},
		"hangs up":                   {reply{}, nil, rdma.RetryExceeded},
		"always expects what it got": {right, []reply{right, right, right}, rdma.RetryExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer ln.Close()
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					if l.answer.kind == 0 {
						c.Close()
						continue
					}
					io.ReadFull(c, make([]byte, helloSize))
					c.Write(l.answer.append(nil))
					for _, rp := range l.replies {
						if _, err := io.ReadFull(c, make([]byte, requestSize)); err != nil {
							break
						}
						c.Write(rp.append(nil))
					}
					go func() {
						io.Copy(io.Discard, c)
						c.Close()
					}()
				}
			}()
			v := newVictim(t)
			require.NoError(t, v.qp.Close())
			v.drained(t)
			v.renew(t, ln.Addr().String())
			_, err = v.qp.PostSend([]rdma.SendWR{{Op: rdma.OpWrite, Flags: rdma.Signaled}})
			require.NoError(t, err)
			c := make([]rdma.Completion, 1)
			for n := 0; n == 0; {
				require.NoError(t, v.cq.Wait(t.Context()))
				n, err = v.cq.Poll(c)
				require.NoError(t, err)
			}
			require.Equal(t, l.want, c[0].Status)
		})
	}
}
