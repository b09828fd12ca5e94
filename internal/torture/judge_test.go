package torture

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// scene is an episode of one stream, from a child to the survivor, and its books.
type scene struct {
	l *Lane
	p Plan
	f facts
	b books
}

func newScene(t *testing.T, lane string) *scene {
	l, err := Named(lane)
	require.NoError(t, err)
	return &scene{
		l: l,
		p: Plan{Children: 1, Receiver: Survivor, Streams: []StreamPlan{{Senders: []SenderPlan{{Host: 0, Rounds: 1, End: Finalize}}}}},
		f: facts{kids: make([]kidFacts, 1)},
		b: books{
			senders:  map[int]senderBook{0: {Attempted: 10, Committed: 10, Bytes: 100, ID: 1, End: Finalize, Ended: true, Done: true}},
			sessions: []sessionBook{{ID: 1, Got: 10, Bytes: 100, Kind: uint64(novastream.KindFinalized), Exits: 1, FirstAt: 1, EndAt: 9}},
			streams:  []streamBook{{EOF: true, Count: 1}},
		},
	}
}

func (s *scene) sender(edit func(*senderBook)) {
	x := s.b.senders[0]
	edit(&x)
	s.b.senders[0] = x
}

// killed is the scene when the sender was killed in mid-stream.
func (s *scene) killed() {
	s.f.kids[0].KilledAt = 5
	s.sender(func(x *senderBook) { x.End, x.Ended, x.Done, x.Attempted = 0, false, false, 11 })
	s.b.sessions[0].Kind = uint64(novastream.KindDropped)
}

// receiverKilled is the scene when the receiver was a child and was killed, and the sender is the survivor's.
func (s *scene) receiverKilled() {
	s.f.kids[0].KilledAt = 5
	s.p.Receiver, s.p.Streams[0].Senders[0].Host = 0, Survivor
	s.b.sessions[0].Exits, s.b.sessions[0].Kind, s.b.streams[0].EOF = 0, 0, false
	s.sender(func(x *senderBook) { x.End, x.Ended, x.Error = 0, false, verdictOf(novastream.ErrPeerDead) })
}

// unreached is the scene when the receiver is a child and a sender could not attach to it.
func (s *scene) unreached() {
	s.receiverKilled()
	s.b.sessions, s.b.streams[0].EOF = nil, true
	s.sender(func(x *senderBook) { x.ID, x.Error = 0, verdictOf(control.ErrUnreachable) })
}

// unattached is the scene when the sender was told that there is no such lane.
func (s *scene) unattached() {
	s.b.sessions = nil
	s.b.senders[0] = senderBook{Error: verdictOf(novastream.ErrLaneUnavailable)}
}

// counted is the scene when the sender's SenderStats say so, of two batches.
func counted(frames, payload, wire uint64) func(*scene) {
	return func(s *scene) {
		s.sender(func(x *senderBook) {
			x.Framed, x.Counted = 260, novastream.SenderStats{Batches: 2, Frames: frames, Payload: payload, Wire: wire}
		})
	}
}

// stopped adds that the receiver has stopped the stream.
func (s *scene) stopped() {
	s.b.streams[0].Acted = Stop
	s.sender(func(x *senderBook) { x.Error, x.Lost = verdictOf(novastream.ErrCancelled), 0 })
}

func TestJudge(t *testing.T) {
	kind := func(k novastream.Kind) func(*scene) { return func(s *scene) { s.b.sessions[0].Kind = uint64(k) } }
	for name, c := range map[string]struct {
		lane string
		do   []func(*scene)
		want findKind // none: honest
	}{
		"honest":                    {"shm", nil, ""},
		"torn":                      {"shm", []func(*scene){func(s *scene) { s.b.sessions[0].Torn = 1 }}, findTorn},
		"doubled":                   {"shm", []func(*scene){func(s *scene) { s.b.sessions[0].Doubled = 1 }}, findDoubled},
		"of another session":        {"shm", []func(*scene){func(s *scene) { s.b.sessions[0].Foreign = 1 }}, findDoubled},
		"never sent":                {"shm", []func(*scene){(*scene).killed, func(s *scene) { s.b.sessions[0].Got = 12 }}, findDoubled},
		"a gap":                     {"shm", []func(*scene){func(s *scene) { s.b.sessions[0].Missing = 1 }}, findLost},
		"late":                      {"shm", []func(*scene){func(s *scene) { s.b.sessions[0].Reordered = 1 }}, findReordered},
		"other bytes":               {"shm", []func(*scene){func(s *scene) { s.b.sessions[0].Bytes = 99 }}, findTorn},
		"finalized, not all":        {"tcp", []func(*scene){func(s *scene) { s.b.sessions[0].Got = 9 }}, findLost},
		"finalized is Dropped":      {"shm", []func(*scene){kind(novastream.KindDropped)}, findEnd},
		"two ends":                  {"shm", []func(*scene){func(s *scene) { s.b.sessions[0].Exits = 2 }}, findEnd},
		"no end":                    {"shm", []func(*scene){func(s *scene) { s.b.sessions[0].Exits = 0 }}, findEnd},
		"not read to its end":       {"shm", []func(*scene){func(s *scene) { s.b.streams[0].EOF = false }}, findEnd},
		"after the end":             {"shm", []func(*scene){func(s *scene) { s.b.streams[0].After = 1 }}, findEnd},
		"nobody told":               {"shm", []func(*scene){func(s *scene) { s.b.sessions = nil }}, findEnd},
		"killed":                    {"shm", []func(*scene){(*scene).killed}, ""},
		"killed, the last one came": {"shm", []func(*scene){(*scene).killed, func(s *scene) { s.b.sessions[0].Got = 11 }}, ""},
		"killed, one lost":          {"shm", []func(*scene){(*scene).killed, func(s *scene) { s.b.sessions[0].Got = 9 }}, findLost},
		"killed, one lost with it":  {"tcp", []func(*scene){(*scene).killed, func(s *scene) { s.b.sessions[0].Got = 9 }}, ""},
		"killed is Finalized":       {"shm", []func(*scene){(*scene).killed, kind(novastream.KindFinalized)}, findEnd},
		"killed is a timeout":       {"shm", []func(*scene){(*scene).killed, kind(novastream.KindTimeout)}, findEnd},
		"killed is the transport's": {"tcp", []func(*scene){(*scene).killed, kind(novastream.KindTransportError)}, findEnd},
		"alive is Dropped":          {"shm", []func(*scene){(*scene).killed, func(s *scene) { s.f.kids[0].KilledAt = 0 }}, findEnd},
		"told for no reason":        {"shm", []func(*scene){func(s *scene) { s.sender(func(x *senderBook) { x.Error = verdictOf(novastream.ErrPeerDead) }) }}, findEnd},
		"receiver killed":           {"shm", []func(*scene){(*scene).receiverKilled}, ""},
		"receiver killed, misnamed": {"shm", []func(*scene){(*scene).receiverKilled, func(s *scene) { s.sender(func(x *senderBook) { x.Error = verdictOf(novastream.ErrCancelled) }) }}, findEnd},
		"receiver killed, nameless": {"shm", []func(*scene){(*scene).receiverKilled, func(s *scene) { s.sender(func(x *senderBook) { x.Error = nameless }) }}, findEnd},
		"receiver stopped, attach":  {"shm", []func(*scene){(*scene).unreached, func(s *scene) { s.f.kids[0].KilledAt, s.f.kids[0].Silenced = 0, true }}, ""},
		"receiver there, attach":    {"shm", []func(*scene){(*scene).unreached, func(s *scene) { s.f.kids[0].KilledAt = 0 }}, findEnd},
		"stopped during the trial":  {"rdma-soft", []func(*scene){(*scene).unattached, func(s *scene) { s.f.kids[0].Silenced = true }}, ""},
		"tcp has no trial":          {"tcp", []func(*scene){(*scene).unattached, func(s *scene) { s.f.kids[0].Silenced = true }}, findEnd},
		"no lane, for no reason":    {"rdma-soft", []func(*scene){(*scene).unattached}, findEnd},
		"its end miscounts":         {"shm", []func(*scene){func(s *scene) { s.b.sessions[0].Counted = 9 }}, findCount},
		"counted":                   {"tcp", []func(*scene){counted(10, 268, 284)}, ""},
		"counted, a Pad":            {"tcp", []func(*scene){counted(10, 284, 300)}, ""},
		"frames miscounted":         {"tcp", []func(*scene){counted(9, 268, 284)}, findCount},
		"bytes miscounted":          {"tcp", []func(*scene){counted(10, 267, 283)}, findCount},
		"too few bytes":             {"tcp", []func(*scene){counted(10, 252, 268)}, findCount},
		"the wire's miscounted":     {"tcp", []func(*scene){counted(10, 268, 283)}, findCount},
		"compressed":                {"tcp", []func(*scene){counted(10, 268, 150), func(s *scene) { s.p.Streams[0].S2 = true }}, ""},
		"compressed to more":        {"tcp", []func(*scene){counted(10, 268, 301), func(s *scene) { s.p.Streams[0].S2 = true }}, findCount},
		"counted, not carried":      {"shm", []func(*scene){counted(10, 268, 284)}, findCount},
		"values counted":            {"rdma-soft", []func(*scene){counted(10, 640, 656), func(s *scene) { s.p.Streams[0].Values = true }}, ""},
		"values miscounted":         {"rdma-soft", []func(*scene){counted(10, 656, 672), func(s *scene) { s.p.Streams[0].Values = true }}, findCount},
		"cut, the loss was told":    {"tcp", []func(*scene){(*scene).cut}, ""},
		"cut, more was lost":        {"tcp", []func(*scene){(*scene).cut, func(s *scene) { s.b.sessions[0].Got = 5 }}, findLost},
		"stopped, and then cut":     {"tcp", []func(*scene){(*scene).cut, (*scene).stopped, func(s *scene) { s.b.sessions[0].Got = 5 }}, ""},
		"cut, committed before":     {"shm", []func(*scene){(*scene).cut, func(s *scene) { s.b.sessions[0].Got = 5 }}, findLost},
		"stopped for long":          {"shm", []func(*scene){(*scene).killed, func(s *scene) { s.f.kids[0].Silenced = true }, kind(novastream.KindTimeout)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, c.lane)
			for _, do := range c.do {
				do(s)
			}
			if x := &s.b.sessions; len(*x) > 0 && (*x)[0].Counted == 0 {
				(*x)[0].Counted = (*x)[0].came()
			}
			found := judge(s.l, &s.p, s.f, s.b)
			if c.want == "" {
				require.Empty(t, found)
				return
			}
			require.NotEmpty(t, found)
			kinds := map[findKind]bool{}
			for _, f := range found {
				kinds[f.What] = true
			}
			require.True(t, kinds[c.want], "%v", found)
		})
	}
}

// cut is the scene when the connection was cut behind frame 7, and the sender was told
// that the last 4 may be lost.
func (s *scene) cut() {
	s.f.kids[0].Cut = true
	s.sender(func(x *senderBook) {
		x.End, x.Ended, x.Floor, x.Lost, x.Told = 0, false, 6, 4, true
		x.Error = verdictOf(novastream.ErrPeerDead)
	})
	s.b.sessions[0].Got, s.b.sessions[0].Kind = 7, uint64(novastream.KindDropped)
}
