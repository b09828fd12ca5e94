package rdma

import (
	"runtime"
	"time"

	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// wake is called in the producer's goroutine after a commit that found the pump's
// attention word armed, and by whoever ends the session.
func (p *pump) wake(a ring.Attention) {
	if a.Mode() == 0 {
		return
	}
	p.mu.Lock()
	p.woken()
	crowded := p.crowded()
	p.mu.Unlock()
	if crowded {
		p.shard.look()
	}
}

// woken is wake with the lock held.
func (p *pump) woken() {
	if p.dead || p.running || p.over || !p.up {
		return
	}
	if p.encoder != nil {
		if !p.stalled {
			p.work()
		}
		return
	}
	if time.Since(p.last) > quick {
		p.streak = 0
	}
	p.flush()
	if p.dead || p.over || p.stalled || p.running {
		return
	}
	p.last = time.Now()
	if p.streak++; p.streak < many {
		p.x.Arm(shm.Doorbell) // the word changes, so the next commit calls again
		return
	}
	p.work()
}

// work starts a worker. The lock is held.
func (p *pump) work() {
	p.running, p.streak = true, 0
	p.workers.Add(1)
	go p.worker()
}

func (p *pump) worker() {
	defer p.workers.Done()
	idle := 0
	for {
		p.mu.Lock()
		before := p.posted
		p.send(true)
		if p.posted != before {
			idle = 0
		} else if idle++; idle > idleSpins && !p.rest() {
			idle = 0
		}
		p.makeRoom(idle > 0)
		if p.dead || p.over || p.stalled || idle > idleSpins {
			p.running = false
			p.askRoom()
			p.mu.Unlock()
			return
		}
		crowded := p.crowded()
		p.mu.Unlock()
		if crowded {
			p.shard.look()
		}
		if idle%16 == 15 {
			runtime.Gosched()
		}
	}
}

// rest arms the attention word and looks once more: false when there was something.
// The lock is held.
func (p *pump) rest() bool {
	p.x.Arm(shm.Doorbell)
	shm.Barrier() // SYNC: sleep, as in shm.Parker
	before := p.posted
	p.send(true)
	if p.posted == before {
		return true
	}
	p.x.Disarm()
	return false
}

// flush posts all that is committed, as far as there is room, and what else is due.
func (p *pump) flush() { p.send(p.encoder == nil) }

// send is flush; all that is committed is meant only with take.
func (p *pump) send(take bool) {
	was := p.stalled
	p.stalled = false
	for p.room() >= maxBatch {
		if p.roomDue {
			p.roomDue = false
			p.notify(imm(immRoomless, p.roomSeen))
		}
		if take && !p.over && p.ranges() {
			p.announce()
			continue
		}
		if p.dead { // meanwhile
			p.n = 0
			return
		}
		if p.asleep && low(p.pos) != p.idleSeen && !p.over {
			p.announce()
		}
		if p.n > 0 {
			p.post()
		}
		if take && p.encoder.waits() {
			break
		}
		if was && !p.running && !p.dead && !p.over {
			p.work() // nobody would hear of the next commit
		}
		return
	}
	if !p.dead && p.up {
		p.stalled = true
	}
}

// ranges adds the next ranges of committed frames to the batch, or the end. It
// tells whether there is something to announce.
func (p *pump) ranges() bool {
	some := false
	if p.encoder != nil {
		ok := false
		if some, ok = p.encoded(); !ok {
			return false
		}
	} else {
		some = p.plainRanges()
	}
	if err := p.x.Err(); err != nil {
		p.n = 0
		p.fail(err, false)
		return false
	}
	w, ends := p.x.Announcement()
	if ends {
		p.over = true
	}
	p.announced, p.pos = w, p.x.Exported()
	return some || ends
}

// plainRanges adds up to two ranges as they are.
func (p *pump) plainRanges() (some bool) {
	for left, i := p.chunk, 0; i < 2 && left > 0; i++ {
		off, n, ok := p.x.Span(left)
		if !ok {
			break
		}
		p.place(off, off, n, n)
		left -= n
		some = true
	}
	return some
}

// place adds the request that writes size bytes of the region, from at on, to where
// the n bytes of slots from off on are.
func (p *pump) place(off, at, n, size int) (seq uint64) {
	seq = p.add(rdma.OpWrite, rdma.SegmentOf(p.region, at, size), p.remote.remote+uint64(off), p.remote.rkey, 0)
	p.marks[seq%uint64(len(p.marks))] = p.pos
	p.sent.Payload += uint64(n)
	p.sent.Wire += uint64(size)
	return seq
}

// announce adds the announcement and posts the batch. That of the end wakes in any
// case: when it has arrived, nobody answers an idle any more.
func (p *pump) announce() {
	op, v := rdma.OpWrite, uint32(0)
	if p.asleep || p.over {
		p.asleep = false
		op, v = rdma.OpWriteImm, imm(immAnnounced, 0)
	}
	seq := p.write(op, p.announced, p.remote.remote+uint64(p.words+offAnnounced), v)
	p.marks[seq%uint64(len(p.marks))] = p.pos
	p.sent.Batches++
	p.sent.Wire += 8
	if p.encoder != nil {
		p.encoder.until(seq)
		p.signalLast() // what waits for room in the stage hears of it
	}
	if p.over && p.endSeq == 0 {
		p.endSeq = seq + 1
		p.signalLast()
	}
	p.post()
}

// armed is called by the producer that is about to sleep until there is room. The
// head is taken now, before the producer's last look: one that comes while roomless waits
// for the send queue would else be told as seen.
//
// A worker looks at the head as often as it writes, so while there is one the receiver
// is not asked.
func (p *pump) armed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead || p.roomOut {
		return
	}
	p.roomSeen, p.watched = load(p.credits, offHead), true
	if !p.running {
		p.askRoom()
	}
}

// askRoom has the receiver told that the producer sleeps for room. The lock is held.
func (p *pump) askRoom() {
	if !p.watched || p.dead || p.over {
		return
	}
	p.watched, p.roomOut, p.roomDue = false, true, true
	if !p.stalled {
		p.flush()
	}
}

// makeRoom is the worker's: it wakes a producer that sleeps for room, when half of the
// ring is free, or nothing is left to write; each frame's room by itself would cost
// a wake-up a frame. The lock is held.
func (p *pump) makeRoom(idle bool) {
	if !p.watched || p.dead {
		return
	}
	if free := load(p.credits, offHead) - p.roomSeen; free > 0 && (idle || free >= uint64(p.geo.Slots)/2) {
		p.watched = false
		p.roomBell.Ring()
	}
}
