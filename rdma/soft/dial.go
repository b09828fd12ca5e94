package soft

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/novastream/novastream/rdma"
)

// tcpLink is the link to a responder of another process. run writes requests, and
// a goroutine of the link reads the replies.
type tcpLink struct {
	*conn
	q    *qp
	done chan struct{} // closed when nothing is read any more
}

// answerTimeout is how long a peer that has accepted a connection may take to
// answer its hello.
const answerTimeout = 2 * time.Second

// dial connects to a responder of another process.
func (q *qp) dial() (link, reply, error) {
	if !q.dev.reachable() {
		return nil, reply{}, errUnreachable
	}
	d := net.Dialer{Timeout: q.opt.Timeout, KeepAlive: -1}
	raw, err := d.DialContext(q.ctx, "tcp", q.remote.hostPort)
	if err != nil {
		return nil, reply{}, err
	}
	giveUpAfter(raw, time.Duration(q.opt.RetryCount+1)*q.opt.Timeout/2)
	var wrap func(net.Conn) *tls.Conn
	if cfg := q.dev.cfg.client; cfg != nil {
		if cfg.ServerName == "" {
			cfg = cfg.Clone()
			cfg.ServerName, _, _ = net.SplitHostPort(q.remote.hostPort)
		}
		wrap = func(c net.Conn) *tls.Conn { return tls.Client(c, cfg) }
	}
	l := &tcpLink{conn: newConn(raw, wrap), q: q, done: make(chan struct{})}
	answer, err := l.greet()
	if err != nil {
		raw.Close()
		return nil, reply{}, err
	}
	go l.receive()
	return l, answer, nil
}

func (l *tcpLink) greet() (reply, error) {
	q := l.q
	defer context.AfterFunc(q.ctx, l.interrupt)()
	l.deadline(time.Now().Add(answerTimeout))
	h := hello{to: q.remote.num, from: q.num, toToken: q.remote.qp, fromToken: q.token, fromDevice: q.dev.id}
	if _, err := l.Write(h.append(nil)); err != nil {
		return reply{}, err
	}
	rp, err := l.next()
	if err != nil {
		return rp, err
	}
	if rp.kind != nakSeq && rp.kind != nakFatal {
		return rp, errProtocol
	}
	l.deadline(time.Time{})
	return rp, nil
}

// next reads a reply's header.
func (l *tcpLink) next() (reply, error) {
	var b [replySize]byte
	if _, err := io.ReadFull(l.br, b[:]); err != nil {
		return reply{}, err
	}
	return parseReply(b[:])
}

// receive takes replies until the connection ends.
func (l *tcpLink) receive() {
	defer close(l.done)
	for {
		rp, err := l.next()
		if err == nil {
			err = l.q.onReply(l, rp, l)
		}
		if err != nil {
			l.q.mu.Lock()
			defer l.q.mu.Unlock()
			if errors.Is(err, errProtocol) && l.q.link == l {
				l.q.fail(rdma.BadResponse)
			}
			l.q.down(l)
			return
		}
	}
}

// send gathers the requests and writes them.
func (l *tcpLink) send(batch []message) (int, error) {
	for i := range batch {
		m := &batch[i]
		if err := l.room(requestSize + len(m.data)); err != nil {
			return i, err
		}
		switch {
		case m.data != nil || m.payload() == 0:
			l.buf = append(m.append(l.buf), m.data...)
		default:
			r, mem := l.source(l.q, m.local)
			if mem == nil {
				return i, l.flush()
			}
			l.buf = m.append(l.buf)
			if err := l.gather(r, mem); err != nil {
				return i, err
			}
		}
	}
	return len(batch), l.flush()
}

func (l *tcpLink) close() {
	l.interrupt()
	l.raw.Close()
	<-l.done
}
