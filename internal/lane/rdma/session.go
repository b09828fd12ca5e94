package rdma

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// session is what the two ends of a session have in common: a queue pair, the
// region that their ring lies in, and what they write to at the other side.
type session struct {
	conn
	lane *Lane
	link *link
	key  key
	to   uint64 // whom a failure is told to: toReceiver or toSender
	tell func(error)

	region rdma.Region // the ring, and behind it the page of words
	ring   *ring.Ring
	geo    ring.Geometry
	words  int // where in the region that page is
	remote place
}

const (
	toReceiver = 0
	toSender   = 1
)

// make makes the region, with a ring in it and so many bytes more behind its words,
// and the queue pair. What it has made is released when it fails.
func (s *session) make(l *Lane, req lane.Request, o owner, access rdma.Access, more int) (err error) {
	s.lane, s.key, s.tell, s.geo = l, key{req.Peer, req.Outlet}, req.Fail, req.Geometry
	s.words = req.Geometry.SegmentSize()
	if s.link, err = l.link(req.Peer); err != nil {
		return err
	}
	if s.region, err = s.link.dom.NewRegion(s.words+pageSize+more, access); err != nil {
		return err
	}
	mem := s.region.Bytes()
	if s.ring, err = ring.Format(mem[:s.words:s.words], req.Geometry); err == nil {
		err = s.conn.open(s.link, o)
	}
	if err != nil {
		_ = s.region.Close()
	}
	return err
}

// outbox is where the word that the request with this number sends is kept until
// it is done.
func (s *session) outbox(ahead int) int {
	return s.words + offOutbox + int((s.posted+uint64(s.n+ahead))%sendDepth)*8
}

// write adds a request that writes a word. The lock is held.
func (s *session) write(op rdma.Op, v, to uint64, immediate uint32) (seq uint64) {
	off := s.outbox(0)
	*wordAt(s.region, off) = v
	return s.add(op, rdma.SegmentOf(s.region, off, 8), to, s.remote.rkey, immediate)
}

// notify adds a request that carries an immediate and nothing else.
func (s *session) notify(immediate uint32) {
	s.add(rdma.OpWriteImm, rdma.Segment{}, s.remote.remote, s.remote.rkey, immediate)
}

// tellTimeout is how long the failure of a queue pair is kept from this side so
// that the other hears of it first. It is more than a round trip on any network
// that works, and with the retries of the device less than a second.
const tellTimeout = 200 * time.Millisecond

// told tells both sides of a failure. The other side is asked first, because it may
// have ended the session in order: then its word of that, which came before its
// answer, counts and not the failure, which is only its consequence. Where the
// connection has ended too, its end is what is told: the peer is dead.
//
// The answer true is that the sender's end had arrived before.
func (s *session) told(err error, told bool) bool {
	if !told {
		wait := time.NewTimer(tellTimeout)
		defer wait.Stop()
		select {
		case a := <-s.report(err):
			switch {
			case errors.Is(a.err, control.ErrConnLost) || s.link.peer.Err() != nil:
				return false
			case a.ended:
				return true
			}
		case <-wait.C:
		}
	}
	s.tell(err)
	return false
}

// reportTimeout is how long the other side may take to hear of a failure. A path that is
// cut for little longer than a device retries carries requests again before it
// carries the report; without that the other side, where nothing has failed, would
// wait for a session that is gone.
const reportTimeout = 10 * time.Second

// report tells the other side of a failure, also when nobody waits for its answer
// any more.
func (s *session) report(err error) <-chan reported {
	answer := make(chan reported, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), reportTimeout)
		defer cancel()
		b := newWriter().uint(s.key.outlet).uint(s.to).bytes([]byte(err.Error()))
		msg, e := s.link.peer.Call(ctx, "rdma_failed", control.Message{Payload: b})
		answer <- reported{e == nil && bytes.Equal(msg.Payload, answered), e}
	}()
	return answer
}

// reported is the answer to a report: whether the sender's end had arrived before.
type reported struct {
	ended bool
	err   error
}

// closing calls what closes the session. When the queue pair has failed nobody waits
// for that: packets of it that still wait for a link or an address may keep a device
// from giving it up for seconds.
func (s *session) closing(finish func()) {
	s.mu.Lock()
	failed := s.failed != nil
	s.mu.Unlock()
	if failed {
		go finish()
		return
	}
	finish()
}

// close ends the session's part in the lane. Nothing touches its memory any more,
// the peer's device included, when it has returned.
func (s *session) close() {
	s.link.remove(s)
	s.shut()
	_ = s.region.Close()
}

// parker is where an end waits: on its bell, which whoever takes its immediates
// rings. Its peer cannot reach a futex of this process.
func parker(wait shm.Strategy, bell shm.Bell) *shm.Parker { return shm.NewParker(wait, nil, bell) }
