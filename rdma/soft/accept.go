package soft

import (
	"crypto/subtle"
	"crypto/tls"
	"io"
	"net"
	"time"

	"github.com/novastream/novastream/rdma"
)

// served is a connection whose requests a queue pair executes. One goroutine reads
// them and writes the replies: a peer that does not take its replies stops itself.
type served struct {
	*conn
	q       *qp
	refused bool // the last reply was that of a request that took the queue pair to Error
}

const (
	helloTimeout = 5 * time.Second
	// maxGreeting is how many connections may be without a valid hello.
	maxGreeting = 256
	// lingerTime is how long the reader of a queue pair in Error waits for its peer
	// to read why.
	lingerTime = time.Second
	// A turn ends after so many requests or bytes, so that they are acknowledged.
	turnRequests = 64
	turnBytes    = 1 << 20
)

// accept serves connections until the listener is closed.
func (d *Device) accept() {
	greeting := make(chan struct{}, maxGreeting)
	for {
		raw, err := d.ln.Accept()
		if err != nil {
			if d.isClosed() {
				return
			}
			time.Sleep(10 * time.Millisecond) // no descriptors: some may come free
			continue
		}
		select {
		case greeting <- struct{}{}:
		default:
			raw.Close()
			continue
		}
		var wrap func(net.Conn) *tls.Conn
		if cfg := d.cfg.server; cfg != nil {
			wrap = func(c net.Conn) *tls.Conn { return tls.Server(c, cfg) }
		}
		s := &served{conn: newConn(raw, wrap)}
		if !d.track(s) {
			raw.Close()
			continue
		}
		d.served.Go(func() {
			defer d.untrack(s)
			ok := s.greet(d)
			<-greeting
			if ok {
				s.loop()
			}
		})
	}
}

// greet reads the hello and answers it; false when the connection is not to be
// served.
func (s *served) greet(d *Device) bool {
	s.deadline(time.Now().Add(helloTimeout))
	var b [helloSize]byte
	if _, err := io.ReadFull(s.br, b[:]); err != nil {
		return false
	}
	h, err := parseHello(b[:])
	if err != nil || !d.reachable() {
		return false
	}
	q := d.find(h.to)
	if q == nil || subtle.ConstantTimeCompare(q.token[:], h.toToken[:]) != 1 {
		return false
	}
	s.q = q
	answer, ok := s.adopt(&h)
	if !ok {
		return false
	}
	if _, err := s.Write(answer.append(nil)); err != nil {
		return false
	}
	if answer.kind == nakFatal {
		s.linger()
		return false
	}
	s.deadline(time.Time{})
	return true
}

// adopt takes the place of the connection that the queue pair was served by: its
// turn ends, and then the answer holds.
func (s *served) adopt(h *hello) (reply, bool) {
	q := s.q
	answer, ok := q.admit(h.fromDevice, h.from, h.fromToken)
	if !ok || answer.kind == nakFatal {
		return answer, ok
	}
	q.mu.Lock()
	if q.serving != nil {
		q.serving.interrupt()
	}
	q.serving = s
	q.mu.Unlock()
	q.serveMu.Lock()
	defer q.serveMu.Unlock()
	if answer, ok = q.admit(h.fromDevice, h.from, h.fromToken); !ok || !s.current() || !q.dev.reachable() {
		return answer, false
	}
	return answer, true
}

// current tells whether it is this connection that serves.
func (s *served) current() bool {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	return s.q.serving == s && s.q.state == rdma.RTS
}

// loop executes requests until the connection or the queue pair ends.
func (s *served) loop() {
	for {
		// Nothing is held while nothing comes.
		if _, err := s.br.Peek(requestSize); err != nil {
			break
		}
		if !s.turn() {
			break
		}
	}
	s.q.mu.Lock()
	if s.q.serving == s {
		s.q.serving = nil
	}
	s.q.mu.Unlock()
	if s.refused {
		s.linger()
	}
}

// turn executes the requests that have come; false when it cannot go on.
func (s *served) turn() bool {
	s.q.serveMu.Lock()
	defer s.q.serveMu.Unlock()
	defer s.drop()
	if !s.current() {
		return false
	}
	t := turn{q: s.q, w: s}
	for n, bytes := 0, 0; n < turnRequests && bytes < turnBytes && s.br.Buffered() >= requestSize; n++ {
		b, _ := s.br.Peek(requestSize)
		m, err := parseRequest(b)
		if err != nil {
			return false
		}
		s.br.Discard(requestSize)
		bytes += m.payload()
		if t.serve(&m) != nil {
			// What was executed before is acknowledged, if that is still possible.
			s.flush()
			return false
		}
	}
	return t.end() == nil && s.flush() == nil
}

func (s *served) enterer() interrupter { return s.conn }

func (s *served) reply(rp reply, r *region, data []byte) error {
	if rp.kind == nakFatal {
		s.refused = true
		s.deadline(time.Now().Add(lingerTime))
	}
	if err := s.room(replySize); err != nil {
		if r != nil {
			r.exit(s.conn)
		}
		return err
	}
	s.buf = rp.append(s.buf)
	if len(data) == 0 {
		return nil
	}
	return s.gather(r, data)
}

// linger keeps the connection until the peer has read the last reply: closing it
// with requests unread would take the reply away.
func (s *served) linger() {
	s.deadline(time.Now().Add(lingerTime))
	io.Copy(io.Discard, s.br)
}

// track keeps a connection for Close; false when the device is closed.
func (d *Device) track(s *served) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.conns[s] = true
	return true
}

func (d *Device) untrack(s *served) {
	s.raw.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, s)
}

func (d *Device) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}
