package torture

import (
	"fmt"
	"slices"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// finding is something that must not be.
type finding struct {
	What findKind
	Text string
}

type findKind string

// The kinds of findings, which are columns of the summary.
const (
	findLost      findKind = "lost"
	findTorn      findKind = "torn"
	findDoubled   findKind = "doubled"
	findReordered findKind = "reordered"
	findEnd       findKind = "wrong end"
	findCount     findKind = "miscounted"
	findLeft      findKind = "left behind"
)

// court judges the books of one episode.
type court struct {
	l     *Lane
	p     *Plan
	f     facts
	b     books
	found []finding
}

// judge tells what the books of an episode show that must not be.
//
// Of every session: a frame comes once, whole and in its place, and never one that
// was not sent. What must have come depends on how it ended: after Finalized and
// Detached everything; after Dropped everything that was committed, where the sender's
// death cannot take it along, and else everything but what the sender was told may be
// lost. How it may have ended depends on what was done to whom.
func judge(l *Lane, p *Plan, f facts, b books) []finding {
	c := &court{l: l, p: p, f: f, b: b}
	dead := p.Receiver != Survivor && f.kids[p.Receiver].KilledAt != 0
	for i := range b.sessions {
		c.frames(&b.sessions[i])
		if !dead {
			c.session(&b.sessions[i])
		}
	}
	for i := range p.Streams {
		if !dead {
			c.stream(i)
		}
		for _, x := range p.Streams[i].Senders {
			failed := false
			for k := range x.Rounds {
				failed = c.sender(i, &x, x.Record+k, k == x.Rounds-1, failed) || failed
			}
		}
	}
	return c.found
}

func (c *court) add(what findKind, format string, args ...any) {
	c.found = append(c.found, finding{what, fmt.Sprintf(format, args...)})
}

// frames judges what came.
func (c *court) frames(s *sessionBook) {
	name := c.name(s)
	if s.Torn > 0 {
		c.add(findTorn, "%s: %d of %d frames are torn", name, s.Torn, s.Got+s.Torn)
	}
	if s.Doubled > 0 {
		c.add(findDoubled, "%s: %d frames came again", name, s.Doubled)
	}
	if s.Missing > 0 {
		c.add(findLost, "%s: %d frames are missing before others", name, s.Missing)
	}
	if s.Reordered > 0 {
		c.add(findReordered, "%s: %d frames came late", name, s.Reordered)
	}
	if s.Foreign > 0 {
		c.add(findDoubled, "%s: %d frames are of other sessions", name, s.Foreign)
	}
	if s.Numbers > 0 {
		c.add(findReordered, "%s: %d frames have another Seq than their place", name, s.Numbers)
	}
	if x, ok := c.b.senders[s.Sender]; ok && s.Got > x.Attempted {
		c.add(findDoubled, "%s: %d frames came, %d were sent", name, s.Got, x.Attempted)
	}
}

func (c *court) name(s *sessionBook) string {
	return fmt.Sprintf("stream %d, sender %d (record %d)", s.Stream, s.ID, s.Sender)
}

// senderOf finds the round that a session is of: by its frames, or by the id that the
// sender was given. A sender that died in between, or failed to attach after it was
// let in, has none.
func (c *court) senderOf(s *sessionBook) (x senderBook, plan *SenderPlan, ok bool) {
	for k := range c.p.Streams[s.Stream].Senders {
		plan := &c.p.Streams[s.Stream].Senders[k]
		for r := range plan.Rounds {
			b := c.b.senders[plan.Record+r]
			if s.Sender == plan.Record+r || s.Sender < 0 && b.ID != 0 && b.ID == s.ID {
				return b, plan, true
			}
		}
	}
	return x, nil, false
}

// session judges how a session ended, and whether everything came that had to.
func (c *court) session(s *sessionBook) {
	stream := &c.b.streams[s.Stream]
	kind := novastream.Kind(s.Kind)
	if s.Exits > 1 {
		c.add(findEnd, "%s: ended %d times", c.name(s), s.Exits)
	}
	if came := s.came(); s.Exits > 0 && s.Counted != came {
		c.add(findCount, "%s: %d frames came, its end says %d", c.name(s), came, s.Counted)
	}
	x, plan, ok := c.senderOf(s)
	switch {
	case s.Exits == 0 && (stream.Acted == Cancel || stream.Acted == Close || !stream.EOF):
		return // a stream that was given up tells of no sender any more; an open one is judged as such
	case s.Exits == 0:
		c.add(findEnd, "%s: the stream ended without its end", c.name(s))
		return
	case !ok:
		if s.Got > 0 {
			c.add(findDoubled, "%s: %d frames of nobody", c.name(s), s.Got)
		}
		if !slices.Contains([]novastream.Kind{novastream.KindDropped, novastream.KindCancelled, novastream.KindTransportError, novastream.KindTimeout}, kind) {
			c.add(findEnd, "%s: %v of a sender that never attached", c.name(s), kind)
		}
		return
	}
	if allowed := c.ends(s.Stream, plan, &x); !slices.Contains(allowed, kind) {
		c.add(findEnd, "%s: ended with %v (%s), expected %v; the sender: %+v", c.name(s), kind, s.Text, allowed, x)
	}
	if least := c.least(plan, &x, kind); s.Got < least {
		c.add(findLost, "%s: %d frames came, %d had to, then %v; the sender: %+v", c.name(s), s.Got, least, kind, x)
	}
	if s.Got == x.Committed && x.Committed == x.Attempted && s.Bytes != x.Bytes {
		c.add(findTorn, "%s: %d bytes came of %d", c.name(s), s.Bytes, x.Bytes)
	}
}

// ends are how a session may end, as its receiver is told.
func (c *court) ends(stream int, plan *SenderPlan, x *senderBook) (kinds []novastream.Kind) {
	began := map[End]novastream.Kind{
		Finalize: novastream.KindFinalized, Detach: novastream.KindDetached,
		CloseIt: novastream.KindDropped, Abandon: novastream.KindDropped,
	}[x.End]
	if began != 0 {
		kinds = append(kinds, began)
	}
	mine, theirs := c.kid(plan.Host), c.kid(c.p.Receiver)
	if mine.Silenced { // the receiver may have given it up before it went on
		kinds = append(kinds, novastream.KindTimeout)
	}
	if (mine.Cut || theirs.Cut) && !c.l.carried { // the same, of a sender that has not noticed yet
		kinds = append(kinds, novastream.KindDropped)
	}
	if x.End == Finalize && x.Ended || x.End == Detach && x.Ended {
		return kinds // the call has said so
	}
	if mine.KilledAt != 0 {
		kinds = append(kinds, novastream.KindDropped)
	}
	if mine.Cut || theirs.Cut {
		kinds = append(kinds, novastream.KindDropped)
		if c.l.carried {
			kinds = append(kinds, novastream.KindTransportError)
		}
	}
	if acted := c.b.streams[stream].Acted; acted == Stop || acted == Cancel {
		kinds = append(kinds, novastream.KindCancelled)
	}
	return kinds
}

// least is how many frames must have come.
func (c *court) least(plan *SenderPlan, x *senderBook, kind novastream.Kind) uint64 {
	mine, theirs := c.kid(plan.Host), c.kid(c.p.Receiver)
	switch {
	case kind == novastream.KindFinalized || kind == novastream.KindDetached:
		return x.Committed
	case kind == novastream.KindCancelled: // Stop: Cancelled from the sender's own end
		if mine.KilledAt != 0 || mine.Cut || theirs.Cut {
			return 0
		}
		return x.Committed
	case mine.Cut || theirs.Cut || kind == novastream.KindTimeout:
		if c.l.carried {
			if x.Error == 0 || x.End >= CloseIt || x.Lost > x.Committed || x.Error.is(novastream.ErrCancelled) {
				return 0 // who has closed it, or was stopped before, is told no more
			}
			return x.Committed - x.Lost
		}
		return x.Floor
	case c.l.carried && mine.KilledAt != 0:
		return 0
	}
	return x.Committed
}

// stream judges whether a stream was read to its end.
func (c *court) stream(i int) {
	t := &c.b.streams[i]
	switch {
	case t.Unknown > 0:
		c.add(findDoubled, "stream %d: %d frames of senders that had not attached, or had ended", i, t.Unknown)
	case t.Overflow > 0:
		c.add(findEnd, "stream %d: %d sessions too many", i, t.Overflow)
	case t.After > 0:
		c.add(findEnd, "stream %d: something came after its end", i)
	case t.Acted == Close && t.Error.is(novastream.ErrClosed):
	case !t.EOF:
		c.add(findEnd, "stream %d: not read to its end: %v (%s)", i, t.Error, t.Text)
	}
}

// kid is what was done to a host.
func (c *court) kid(host int) kidFacts {
	if host == Survivor {
		return kidFacts{}
	}
	return c.f.kids[host]
}

// sender judges what a sender was told, and answers whether its round had failed.
func (c *court) sender(stream int, plan *SenderPlan, record int, last, failed bool) bool {
	x := c.b.senders[record]
	mine, theirs, t := c.kid(plan.Host), c.kid(c.p.Receiver), &c.b.streams[stream]
	if mine.KilledAt != 0 {
		return x.Error != 0
	}
	name := fmt.Sprintf("stream %d, record %d", stream, record)
	met := x.ID != 0 && slices.ContainsFunc(c.b.sessions, func(s sessionBook) bool { return s.Stream == stream && s.ID == x.ID })
	// An exclusive stream is over when its sender has dropped; who attaches before its
	// receiver has read as far as that is told PeerDead, and the receiver nothing.
	over := failed && !c.p.Streams[stream].Shared && x.Error.is(novastream.ErrPeerDead)
	if x.ID != 0 && !met && !over && theirs.KilledAt == 0 && t.Acted != Cancel && t.Acted != Close {
		c.add(findEnd, "%s: attached as sender %d, and its receiver was told nothing; the sender: %+v", name, x.ID, x)
	}
	if x.Error == 0 {
		if wrong := c.l.miscounted(&c.p.Streams[stream], &x); wrong != "" {
			c.add(findCount, "%s: %s: sent %d frames of %d bytes, counted %+v", name, wrong, x.Committed, x.Bytes, x.Counted)
		}
		return false
	}
	var may []error
	if theirs.KilledAt != 0 {
		may = append(may, novastream.ErrPeerDead)
	}
	if mine.Cut || theirs.Cut {
		may = append(may, novastream.ErrPeerDead)
		if c.l.carried {
			may = append(may, novastream.ErrTransport)
		}
	}
	switch t.Acted {
	case Cancel, Stop:
		may = append(may, novastream.ErrCancelled)
	case Close:
		may = append(may, novastream.ErrPeerDead)
	}
	if mine.Silenced {
		may = append(may, novastream.ErrCancelled, novastream.ErrPeerDead)
	}
	if last && plan.End == Abandon {
		may = append(may, novastream.ErrClosed)
	}
	if x.ID == 0 { // it could not attach
		if theirs.Silenced { // who is stopped greets nobody
			may = append(may, control.ErrUnreachable)
		}
		if len(may) > 0 || failed {
			may = append(may, novastream.ErrStaleHandle, novastream.ErrNoSuchStream, novastream.ErrFinalized, novastream.ErrClosed,
				novastream.ErrCancelled, novastream.ErrPeerDead, control.ErrConnLost, control.ErrUnreachable, control.ErrPeerRefused)
		}
		if c.l.lane == novastream.LaneRDMA && (mine.Silenced || theirs.Silenced) {
			may = append(may, novastream.ErrLaneUnavailable) // the devices' trial has a limit, which a stop outlasts
		}
	}
	if x.Error&nameless != 0 || !x.Error.is(may...) {
		c.add(findEnd, "%s: the sender was told %v (%s)", name, x.Error, x.Text)
	}
	return true
}
