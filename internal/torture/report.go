package torture

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/novastream/novastream"
)

// Report is what was counted and found.
type Report struct {
	Seed     uint64    `json:"seed"`
	Seconds  float64   `json:"seconds"`
	Kills    int       `json:"kills"`
	Rows     []Row     `json:"lanes"`
	Found    int       `json:"found"`
	Findings []Finding `json:"findings,omitempty"` // the first ones
}

// OK tells whether nothing was found.
func (r Report) OK() bool { return r.Found == 0 }

// Row is what was counted of a lane.
type Row struct {
	Lane      string        `json:"lane"`
	Episodes  int           `json:"episodes"`
	Kills     int           `json:"kills"`
	Stops     int           `json:"stops"`
	Cuts      int           `json:"cuts"`
	Streams   int           `json:"streams"`
	Sessions  int           `json:"sessions"`
	Sent      uint64        `json:"sent"` // frames, for which a call has returned nil
	Frames    uint64        `json:"frames"`
	Bytes     uint64        `json:"bytes"`
	Lost      int           `json:"lost"` // sessions
	Torn      int           `json:"torn"`
	Doubled   int           `json:"doubled"`
	Reordered int           `json:"reordered"`
	WrongEnds int           `json:"wrongEnds"`
	Miscounts int           `json:"miscounted"`
	Left      int           `json:"leftBehind"`
	Notices   int           `json:"notices"`
	P50       time.Duration `json:"noticeP50"`
	P99       time.Duration `json:"noticeP99"`
	Max       time.Duration `json:"noticeMax"`

	Sums Sums `json:"sums"`

	notices []time.Duration
}

// Finding is something that must not be, and how to run it again.
type Finding struct {
	Lane    string `json:"lane"`
	Episode uint64 `json:"episode"`
	Kind    string `json:"kind"`
	Text    string `json:"text"`
	Again   string `json:"again"`
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: lane %s, episode %d: %s\n  again: %s", f.Kind, f.Lane, f.Episode, f.Text, f.Again)
}

func (r *Row) add(what findKind) {
	switch what {
	case findLost:
		r.Lost++
	case findTorn:
		r.Torn++
	case findDoubled:
		r.Doubled++
	case findReordered:
		r.Reordered++
	case findEnd:
		r.WrongEnds++
	case findCount:
		r.Miscounts++
	case findLeft:
		r.Left++
	}
}

// count adds an episode to its lane's row.
func (t *Torture) count(l *Lane, e *episode, b books) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[l]
	r.Episodes++
	r.Streams += len(e.p.Streams)
	r.Sessions += len(b.sessions)
	for _, k := range e.facts.kids {
		if k.KilledAt != 0 {
			r.Kills++
		}
		if k.Stopped {
			r.Stops++
		}
		if k.Cut {
			r.Cuts++
		}
	}
	for _, s := range b.sessions {
		r.Frames += s.Got
		r.Bytes += s.Bytes
		r.Sums.received(&s)
	}
	for _, x := range b.senders {
		r.Sent += x.Committed
		if l.carried {
			r.Sums.sent(&x)
		}
	}
	r.notices = append(r.notices, notices(&e.p, e.facts, b)...)
}

// notices are how long it took from a SIGKILL to the survivor's being told of it, behind
// everything that had arrived: of senders that were killed while they were attached,
// and of receivers.
func notices(p *Plan, f facts, b books) (all []time.Duration) {
	since := func(k kidFacts, at uint64) {
		if k.KilledAt != 0 && !k.Cut && at > k.KilledAt {
			all = append(all, time.Duration(at-k.KilledAt))
		}
	}
	if p.Receiver != Survivor {
		for _, s := range p.Streams {
			for _, x := range s.Senders {
				for k := range x.Rounds {
					if r := b.senders[x.Record+k]; x.Host == Survivor && r.ID != 0 && r.Error.is(novastream.ErrPeerDead) {
						since(f.kids[p.Receiver], r.ErrorAt)
					}
				}
			}
		}
		return all
	}
	for _, s := range b.sessions {
		k, plan := hostOf(p, f, &s)
		if novastream.Kind(s.Kind) == novastream.KindDropped && !p.Streams[s.Stream].Slow && plan != nil && s.FirstAt < k.KilledAt {
			since(k, s.EndAt)
		}
	}
	return all
}

// hostOf finds what was done to the host of a session's sender.
func hostOf(p *Plan, f facts, s *sessionBook) (kidFacts, *SenderPlan) {
	for k := range p.Streams[s.Stream].Senders {
		x := &p.Streams[s.Stream].Senders[k]
		if s.Sender >= x.Record && s.Sender < x.Record+x.Rounds && x.Host != Survivor {
			return f.kids[x.Host], x
		}
	}
	return kidFacts{}, nil
}

func (t *Torture) report(d time.Duration) Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rep
	r.Seed, r.Seconds = t.Seed, d.Seconds()
	for _, l := range t.Lanes {
		row := t.rows[l]
		if row == nil {
			continue
		}
		slices.Sort(row.notices)
		row.Notices = len(row.notices)
		row.P50, row.P99, row.Max = percentile(row.notices, 500), percentile(row.notices, 990), percentile(row.notices, 1000)
		r.Kills += row.Kills
		r.Rows = append(r.Rows, *row)
	}
	return r
}

func percentile(sorted []time.Duration, perMille int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*perMille/1000, len(sorted)-1)].Round(time.Microsecond)
}

// progress tells how far the run is.
func (t *Torture) progress(start time.Time) {
	r := t.report(time.Since(start))
	t.Log("%d kills in %.0f s, %d findings", r.Kills, r.Seconds, r.Found)
}

// Print prints the summary.
func (r Report) Print(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "lane\tkills\tstops\tcuts\tstreams\tsessions\tsent\tarrived\tMB\tlost\ttorn\tdoubled\treordered\twrong ends\tmiscounted\tleft behind\tnotice p50\tp99\tmax\t")
	for _, l := range r.Rows {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%v\t%v\t%v\t\n", l.Lane, l.Kills, l.Stops, l.Cuts, l.Streams, l.Sessions,
			l.Sent, l.Frames, l.Bytes/1e6, l.Lost, l.Torn, l.Doubled, l.Reordered, l.WrongEnds, l.Miscounts, l.Left, l.P50, l.P99, l.Max)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, l := range r.Rows {
		fmt.Fprintf(to, "%s: %v\n", l.Lane, l.Sums)
	}
	_, err := fmt.Fprintf(to, "%d kills in %.1f s (%.1f s for 1,000), seed %d: %d findings\n", r.Kills, r.Seconds, r.Seconds*1000/float64(max(r.Kills, 1)), r.Seed, r.Found)
	return err
}
