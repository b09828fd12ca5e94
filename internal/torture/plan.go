package torture

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// Survivor is the number of the torturer's own process among the hosts of an
// episode; the children are numbered from 0.
const Survivor = -1

// Plan is an episode: its streams, who is at their ends, and what happens.
type Plan struct {
	Lane     string
	Episode  uint64
	Seed     uint64 // of what senders and receivers draw
	Children int
	Receiver int // host of the receiving ends
	Streams  []StreamPlan
	Faults   []Fault
	Sabotage string // what a sender does wrong on purpose, to try the torture itself
}

// StreamPlan is one stream.
type StreamPlan struct {
	Shared  bool
	OneRing bool
	Values  bool // of values in place, else of bytes
	Slots   int
	Mode    int  // by which calls the receiver reads
	Slow    bool // the receiver is slow
	S2      bool // compressed, where the lane crosses a network
	Timeout time.Duration
	Act     Act // what the receiver does to the stream
	After   time.Duration
	Senders []SenderPlan
}

// SenderPlan is one sender: Rounds times it attaches, sends and ends.
type SenderPlan struct {
	Host    int
	Record  int // of the first round, in the ledger
	Rounds  int
	Frames  uint64 // of the last round; the others send a few
	MaxSize int    // of a frame of bytes
	Mode    int    // by which calls it sends
	Burst   int    // frames without a pause
	Pause   time.Duration
	End     End           // of the last round; the others detach
	After   time.Duration // when another goroutine closes the sender, with End Abandon
}

// Act is what a receiver does to its stream besides reading it.
type Act uint8

// The acts.
const (
	Read Act = iota
	Cancel
	Stop
	Close
)

// End is how a sender ends.
type End uint8

// The ends. They are in the ledger, where 0 is none.
const (
	Finalize End = iota + 1
	Detach
	CloseIt
	Abandon
)

// Fault is what is done to a child.
type Fault struct {
	Child int
	Kind  FaultKind
	After time.Duration // since the episode's start
	Hold  time.Duration // how long a stop lasts
}

// FaultKind is a kind of fault.
type FaultKind uint8

// The faults.
const (
	Kill       FaultKind = iota
	StopCont             // SIGSTOP and, after Hold, SIGCONT
	StopKill             // SIGSTOP, then SIGKILL
	LongStop             // a stop of more than the streams' message timeout
	Cut                  // all its connections are shut down
	faultKinds = iota
)

const (
	// silence is the message timeout of streams whose senders are stopped for long,
	// longStop that long; patience is that of all others.
	silence  = 2 * time.Second
	longStop = 5 * time.Second
	patience = time.Minute
	// unending is how many frames a sender sends that is to be killed.
	unending = 1 << 30
)

// NewPlan draws an episode: a calm one has no faults.
func NewPlan(l *Lane, seed, episode uint64, calm bool) Plan {
	h := fnv.New64a()
	h.Write([]byte(l.Name))
	r := rand.New(rand.NewPCG(seed, h.Sum64()+episode))
	p := Plan{Lane: l.Name, Episode: episode, Seed: r.Uint64(), Receiver: Survivor}
	chance := func(percent int) bool { return r.IntN(100) < percent }
	if !l.local {
		p.Children = 1 + r.IntN(3)
		if chance(30) {
			p.Receiver = 0
		}
		if !calm {
			p.drawFaults(r)
		}
	}
	long := slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Kind == LongStop })
	record := 0
	for range 1 + r.IntN(3) {
		s := StreamPlan{
			OneRing: l.oneRing, Shared: l.oneRing || chance(30), Values: chance(40),
			Mode: r.IntN(3), Slow: chance(15), S2: l.carried && chance(25), Timeout: patience,
		}
		s.Slots = []int{64, 1024}[r.IntN(2)]
		if !s.Values {
			s.Slots = []int{256, 8192}[r.IntN(2)]
		}
		if long {
			s.Timeout = silence
		}
		if chance(8) {
			s.Act, s.After = Act(1+r.IntN(3)), draw(r, 20*time.Millisecond)
		}
		senders := 1
		if s.Shared {
			senders = 1 + r.IntN(sharers)
		}
		for range senders {
			x := SenderPlan{
				Host: p.drawSender(r), Record: record, Rounds: 1, Mode: r.IntN(3), Frames: 1 + r.Uint64N(300),
				Burst: 1 << r.IntN(7), Pause: draw(r, time.Millisecond), MaxSize: 256, End: Finalize,
			}
			if chance(25) {
				x.Rounds += r.IntN(3)
			}
			if chance(15) {
				x.MaxSize = 16 << 10
			}
			switch {
			case chance(15):
				x.End = Detach
			case chance(5):
				x.End = CloseIt
			case chance(8):
				x.End, x.Frames, x.After = Abandon, unending, draw(r, 20*time.Millisecond)
			case p.doomed(x.Host) && chance(80):
				x.Frames = unending
			}
			record += x.Rounds
			s.Senders = append(s.Senders, x)
		}
		p.Streams = append(p.Streams, s)
	}
	return p
}

// draw draws a duration: one in five is in the first tenth, where attaches are.
func draw(r *rand.Rand, most time.Duration) time.Duration {
	if r.IntN(5) == 0 {
		most /= 10
	}
	return time.Duration(r.Int64N(int64(most)))
}

func (p *Plan) drawFaults(r *rand.Rand) {
	for c := range p.Children {
		at := draw(r, 25*time.Millisecond)
		switch x := r.IntN(1000); {
		case x < 650:
			p.Faults = append(p.Faults, Fault{Child: c, Kind: Kill, After: at})
		case x < 750:
			p.Faults = append(p.Faults, Fault{Child: c, Kind: StopCont, After: at / 2, Hold: draw(r, 20*time.Millisecond)},
				Fault{Child: c, Kind: Kill, After: at + 30*time.Millisecond})
		case x < 800:
			p.Faults = append(p.Faults, Fault{Child: c, Kind: StopKill, After: at, Hold: draw(r, 10*time.Millisecond)})
		case x < 801:
			p.Faults = append(p.Faults, Fault{Child: c, Kind: LongStop, After: at, Hold: longStop})
		case x < 860:
			p.Faults = append(p.Faults, Fault{Child: c, Kind: Cut, After: at})
		case x < 900:
			p.Faults = append(p.Faults, Fault{Child: c, Kind: StopCont, After: at, Hold: draw(r, 20*time.Millisecond)})
		}
	}
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return int(a.After - b.After) })
}

// drawSender draws where a sender is: not where the receiver is, unless there is no
// other place.
func (p *Plan) drawSender(r *rand.Rand) int {
	switch {
	case p.Children == 0:
		return Survivor
	case p.Receiver == Survivor:
		return r.IntN(p.Children)
	case r.IntN(p.Children+1) < 2:
		return Survivor
	}
	return 1 + r.IntN(p.Children-1)
}

// doomed tells whether a host is going to be killed, or its receiver.
func (p *Plan) doomed(host int) bool {
	for _, f := range p.Faults {
		if (f.Kind == Kill || f.Kind == StopKill) && (f.Child == host || f.Child == p.Receiver) {
			return true
		}
	}
	return false
}
