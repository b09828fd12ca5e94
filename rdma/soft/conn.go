package soft

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"github.com/novastream/novastream/rdma"
)

// conn is what both ends of a connection have: reads that land in registered
// memory, writes that gather from it, and a way to end both from elsewhere.
type conn struct {
	net.Conn          // TLS, if there is any
	raw      net.Conn // what is below it
	br       *bufio.Reader
	buf      []byte      // headers and small payloads that are to be written
	from     int         // buf[from:] is not in iov yet
	iov      net.Buffers // in order
	out      net.Buffers // what is left of iov during a write
	held     []*region   // entered for iov

	mu          sync.Mutex
	interrupted bool
}

const (
	// readAhead is the buffer of headers and small payloads. It is small, because
	// the part of a payload that is read ahead is copied once more.
	readAhead = 16 << 10
	// gatherSize is how much is gathered for one write, beside large payloads.
	gatherSize = 64 << 10
	// gatherLarge is from which size on payloads are written from where they are.
	gatherLarge = 2 << 10
)

func newConn(raw net.Conn, wrap func(net.Conn) *tls.Conn) *conn {
	c := &conn{Conn: raw, raw: raw, buf: make([]byte, 0, gatherSize)}
	if wrap != nil {
		c.Conn = wrap(raw)
	}
	c.br = bufio.NewReaderSize(c.Conn, readAhead)
	return c
}

// interrupt makes reads and writes fail, those under way too. It does not block,
// as closing TLS may.
func (c *conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupted = true
	c.raw.SetDeadline(time.Unix(1, 0))
}

// deadline bounds reads and writes; the zero time is no bound.
func (c *conn) deadline(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.interrupted {
		c.raw.SetDeadline(t)
	}
}

// read moves bytes that come to registered memory.
func (c *conn) read(dst []byte) error {
	if words(dst) == nil {
		_, err := io.ReadFull(c.br, dst)
		return err
	}
	var b [wordwise]byte
	if _, err := io.ReadFull(c.br, b[:len(dst)]); err != nil {
		return err
	}
	copyIn(dst, b[:len(dst)])
	return nil
}

func (c *conn) discard(n int) error {
	_, err := c.br.Discard(n)
	return err
}

// room makes room for n bytes in buf, by writing what is gathered.
func (c *conn) room(n int) error {
	if len(c.buf)+n <= cap(c.buf) {
		return nil
	}
	return c.flush()
}

// gather adds registered memory to what is to be written. The caller has entered r,
// and need not exit it.
func (c *conn) gather(r *region, mem []byte) error {
	if len(mem) >= gatherLarge {
		c.cut()
		c.iov = append(c.iov, mem)
		c.held = append(c.held, r)
		return nil
	}
	defer r.exit(c)
	if err := c.room(len(mem)); err != nil {
		return err
	}
	n := len(c.buf)
	c.buf = c.buf[:n+len(mem)]
	copyOut(c.buf[n:], mem)
	return nil
}

// cut moves what is new in buf to iov.
func (c *conn) cut() {
	if len(c.buf) > c.from {
		c.iov = append(c.iov, c.buf[c.from:len(c.buf):len(c.buf)])
		c.from = len(c.buf)
	}
}

// flush writes what is gathered, in as few system calls as it takes.
func (c *conn) flush() error {
	c.cut()
	c.out = c.iov
	err := writeAll(c.Conn, &c.out)
	for i, r := range c.held {
		r.exit(c)
		c.held[i] = nil
	}
	clear(c.iov)
	c.buf, c.from, c.iov, c.held = c.buf[:0], 0, c.iov[:0], c.held[:0]
	return err
}

// drop forgets what is gathered.
func (c *conn) drop() {
	for _, r := range c.held {
		r.exit(c)
	}
	c.buf, c.from, c.iov, c.held = c.buf[:0], 0, nil, nil
}

// source enters local registered memory for gather; nil when it is none.
func (c *conn) source(q *qp, s rdma.Segment) (*region, []byte) {
	r, mem := q.dev.keys.find(s.LKey, q.dom, 0, s.Addr, s.Length)
	if mem == nil || !r.enter(c) {
		return nil, nil
	}
	return r, mem
}
