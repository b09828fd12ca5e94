package torture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/holding"
)

// Torture is a run. Its fields are what to do; Run does it.
type Torture struct {
	Child    []string // command that becomes a child, given flags
	Lanes    []*Lane
	Seed     uint64
	Kills    int           // in all, over the lanes; 0: until Duration is over
	Duration time.Duration // 0: until Kills are done
	Workers  int           // episodes at the same time
	Only     *uint64       // this episode, again and again
	Soak     bool          // no faults: processes live on, and what they hold stays flat
	Sabotage string
	Log      func(format string, args ...any)

	dir    string
	ledger *Ledger
	hosts  map[*Lane]*host
	before holding.Holdings
	warm   int // kills before that
	mu     sync.Mutex
	rep    Report
	rows   map[*Lane]*Row
	memory []memory // of the survivor, after each slice
}

// warmUp is how many episodes of a lane come before what is held is counted: so many
// that all sizes of segments have been met.
const warmUp = 40

// roundKills is how many kills a round over the lanes has, roundTime how long one takes
// without a number of kills, and soakTime of a soak: children live as long as a turn.
const (
	roundKills = 2000
	roundTime  = 30 * time.Second
	soakTime   = 2 * time.Minute
)

// Run runs it, and answers what was counted and found, also along with an error.
func (t *Torture) Run(ctx context.Context) (rep Report, err error) {
	start := time.Now()
	if err := t.open(ctx); err != nil {
		return rep, err
	}
	defer func() {
		err = errors.Join(err, t.close())
		rep = t.report(time.Since(start))
	}()
	if t.Only != nil {
		return rep, t.repeat(ctx)
	}
	next := map[*Lane]uint64{}
	slice := func(l *Lane, q quota) error {
		n, err := t.slice(ctx, l, next[l], q)
		next[l] = n
		return err
	}
	for _, l := range t.Lanes {
		if err := slice(l, quota{episodes: warmUp}); err != nil {
			return rep, err
		}
	}
	t.before, t.warm = t.settle(), t.allKills()
	deadline := time.Time{}
	if t.Duration > 0 {
		deadline = start.Add(t.Duration)
	}
	for !t.enough(deadline) && ctx.Err() == nil {
		for _, l := range t.Lanes {
			if err := slice(l, t.quota(l, deadline)); err != nil {
				return rep, err
			}
			t.leaks(l)
			t.memory = append(t.memory, memoryNow())
			if t.enough(deadline) || ctx.Err() != nil {
				break
			}
		}
		t.progress(start)
	}
	t.flat()
	return rep, context.Cause(ctx)
}

// quota is a lane's part of a round.
func (t *Torture) quota(l *Lane, deadline time.Time) (q quota) {
	shares, killers := 0, 0
	for _, l := range t.Lanes {
		shares += l.share
		if !l.local {
			killers += l.share
		}
	}
	q.deadline = deadline
	switch {
	case t.Kills > 0 && l.local:
		q.episodes = 100
	case t.Kills > 0:
		q.kills = max(min(roundKills, t.Kills)*l.share/killers, 1)
	default:
		round := min(roundTime, t.Duration)
		if t.Soak {
			round = min(soakTime, t.Duration)
		}
		end := time.Now().Add(round * time.Duration(l.share) / time.Duration(shares))
		if end.Before(deadline) {
			q.deadline = end
		}
	}
	return q
}

// enough tells whether the run is over.
func (t *Torture) enough(deadline time.Time) bool {
	if !deadline.IsZero() && time.Now().After(deadline) {
		return true
	}
	return t.Kills > 0 && t.allKills()-t.warm >= t.Kills
}

func (t *Torture) allKills() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.rows {
		n += r.Kills
	}
	return n
}

// repeat runs one episode again and again, all workers the same.
func (t *Torture) repeat(ctx context.Context) error {
	deadline := time.Now().Add(t.Duration)
	for ctx.Err() == nil && (t.Duration == 0 || time.Now().Before(deadline)) {
		if _, err := t.slice(ctx, t.Lanes[0], *t.Only, quota{episodes: 2 * t.Workers}); err != nil || len(t.rep.Findings) > 0 {
			return err
		}
	}
	return context.Cause(ctx)
}

// quota bounds a slice; 0 does not.
type quota struct {
	episodes int
	kills    int
	deadline time.Time
}

// slice runs episodes of a lane from the number first on, and answers the number
// of the next one.
func (t *Torture) slice(ctx context.Context, l *Lane, first uint64, q quota) (uint64, error) {
	user := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &pool{t: t, l: l}
	defer p.drain()
	var next atomic.Uint64
	next.Store(first)
	kills := t.kills(l)
	var wg sync.WaitGroup
	for w := range t.Workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if q.kills > 0 && t.kills(l)-kills >= q.kills || !q.deadline.IsZero() && time.Now().After(q.deadline) {
					return
				}
				n := next.Add(1) - 1
				if q.episodes > 0 && n >= first+uint64(q.episodes) {
					next.Store(first + uint64(q.episodes))
					return
				}
				if t.Only != nil {
					n = *t.Only
				}
				plan := NewPlan(l, t.Seed, n, t.Soak)
				plan.Sabotage = t.Sabotage
				if err := t.episode(ctx, l, p, w, plan); err != nil && user.Err() == nil {
					t.find(l, &plan, finding{findEnd, "the episode: " + err.Error()})
					cancel(fmt.Errorf("lane %s, episode %d: %w", l.Name, n, err))
				}
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return next.Load(), err
	}
	return next.Load(), nil
}

func (t *Torture) kills(l *Lane) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rows[l].Kills
}

func (t *Torture) dirOf(l *Lane) string { return filepath.Join(t.dir, l.Name) }
func (t *Torture) ledgerPath() string   { return filepath.Join(t.dir, "ledger") }

func (t *Torture) open(ctx context.Context) (err error) {
	if t.dir, err = os.MkdirTemp("", "nv"); err != nil { // short, for a socket's path
		return err
	}
	t.rows, t.hosts = map[*Lane]*Row{}, map[*Lane]*host{}
	if t.ledger, err = CreateLedger(t.ledgerPath(), t.Workers); err != nil {
		return errors.Join(err, t.close())
	}
	for _, l := range t.Lanes {
		n, err := l.open(ctx, t.dirOf(l))
		if err != nil {
			return errors.Join(err, t.close())
		}
		t.rows[l] = &Row{Lane: l.Name}
		t.hosts[l] = &host{n, l, t.ledger}
	}
	return nil
}

func (t *Torture) close() error {
	for _, h := range t.hosts {
		h.close()
	}
	if t.ledger != nil {
		t.ledger.Close()
	}
	return os.RemoveAll(t.dir)
}

// find takes note of a finding.
func (t *Torture) find(l *Lane, p *Plan, f finding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	full := Finding{Lane: l.Name, Kind: string(f.What), Text: f.Text}
	if p != nil {
		full.Episode = p.Episode
		full.Again = fmt.Sprintf("nova torture --lane %s --seed %d --episode %d", l.Name, t.Seed, p.Episode)
	} else {
		full.Again = fmt.Sprintf("nova torture --lane %s --seed %d", l.Name, t.Seed)
	}
	if t.Sabotage != "" {
		full.Again += " --sabotage " + t.Sabotage
	}
	t.rows[l].add(f.What)
	if t.rep.Found++; len(t.rep.Findings) < mostFindings {
		t.rep.Findings = append(t.rep.Findings, full)
		t.Log("%s", full)
	}
}

// mostFindings is how many are told in full.
const mostFindings = 50

// sessions that a node holds when nobody is attached: none.
func (h *host) empty() error {
	s := h.Stats()
	if s.Anchors+s.Inbound+s.Outlets+s.Senders != 0 || s.Memory != 0 {
		return fmt.Errorf("sessions are left: %+v", s)
	}
	return nil
}

// files lists what dead nodes have left in a lane's directory that is not removed by
// the next look at it.
func (t *Torture) files(ctx context.Context, l *Lane) (left []string) {
	_, _ = control.Directory(t.dirOf(l)).List(ctx)
	all, _ := os.ReadDir(t.dirOf(l))
	own := t.hosts[l].Node.WorkerID().String()
	for _, e := range all {
		if name := e.Name(); name != own+".sock" && name != own+".node" {
			left = append(left, name)
		}
	}
	return left
}
