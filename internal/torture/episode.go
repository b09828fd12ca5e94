package torture

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// episode is one that is under way.
type episode struct {
	t        *Torture
	l        *Lane
	p        Plan
	i        int // region
	children []*child
	facts    facts
	rs       *receivers // when the survivor receives
}

// facts are what was done to the children, by whoever did it.
type facts struct {
	kids []kidFacts
}

type kidFacts struct {
	KilledAt               uint64 // just before; 0 when it was not
	Stopped, Silenced, Cut bool
}

// episode runs one from its start until nobody writes to its books any more.
func (t *Torture) episode(ctx context.Context, l *Lane, p *pool, region int, plan Plan) error {
	e := &episode{t: t, l: l, p: plan, i: region, facts: facts{kids: make([]kidFacts, plan.Children)}}
	t.ledger.region(region).clear()
	for range plan.Children {
		c, err := p.get()
		if err != nil {
			return err
		}
		e.children = append(e.children, c)
	}
	ctx, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	tell := time.AfterFunc(hang*3/4, func() { t.Log("lane %s, episode %d: %s\n%+v\n%s", l.Name, plan.Episode, errHang, plan, stacks()) })
	defer tell.Stop()
	err := e.run(ctx)
	for k, c := range e.children {
		switch {
		case e.facts.kids[k].Cut && err == nil && !c.killed.Load():
			p.wg.Go(func() { p.retire(c) }) // it may not have noticed yet, or not even cut
		case err != nil || c.killed.Load():
			if err != nil {
				c.signal(syscall.SIGQUIT)
				time.Sleep(100 * time.Millisecond)
			}
			c.signal(syscall.SIGKILL)
			for range c.replies {
			}
		default:
			p.put(c)
		}
	}
	if err != nil {
		return err
	}
	b := readBooks(t.ledger.region(region), &e.p)
	for _, f := range judge(l, &e.p, e.facts, b) {
		t.find(l, &e.p, f)
	}
	t.count(l, e, b)
	return nil
}

func (e *episode) run(ctx context.Context) error {
	j := job{Plan: e.p, Region: e.i, Me: Survivor}
	var faults sync.WaitGroup
	start := time.Now()
	for k := range e.children {
		faults.Go(func() { e.faults(k, start) })
	}
	defer faults.Wait()
	if err := e.receive(ctx, &j); err == errGone { // before it had streams
		return nil
	} else if err != nil {
		return err
	}
	var sends sync.WaitGroup
	errs := make([]error, len(e.children))
	for k, c := range e.children {
		if k == e.p.Receiver {
			continue
		}
		theirs := j
		theirs.Me = k
		c.order(order{Job: &theirs})
		sends.Go(func() { errs[k] = e.until(c, func(r reply) bool { return r.Over }) })
	}
	e.t.hosts[e.l].send(ctx, &j)
	sends.Wait()
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("a sender: %w", err)
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("a sender of the survivor: %w", errHang)
	}
	return e.stop()
}

// receive makes the streams where the plan wants them.
func (e *episode) receive(ctx context.Context, j *job) (err error) {
	if e.p.Receiver == Survivor {
		e.rs, j.Handles, err = e.t.hosts[e.l].receive(ctx, j)
		return err
	}
	theirs := *j
	theirs.Me = e.p.Receiver
	c := e.children[e.p.Receiver]
	c.order(order{Job: &theirs})
	r, err := c.next(func(r reply) bool { return r.Handles != nil }, hang)
	j.Handles = r.Handles
	return err
}

// stop ends the streams once all senders have ended, and waits for that.
func (e *episode) stop() error {
	if e.p.Receiver != Survivor {
		c := e.children[e.p.Receiver]
		c.order(order{Stop: true})
		if err := e.until(c, func(r reply) bool { return r.Over }); err != nil {
			return fmt.Errorf("a receiver: %w", err)
		}
		return nil
	}
	e.rs.stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.rs.wg.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-time.After(hang):
		return fmt.Errorf("a receiver of the survivor: %w\n%s", errHang, stacks())
	}
}

// until waits for a reply, or for the death of a child that is to die.
func (e *episode) until(c *child, pleases func(reply) bool) error {
	_, err := c.next(pleases, hang)
	if err == errGone && c.killed.Load() {
		return nil
	}
	return err
}

func stacks() string {
	b := make([]byte, 1<<20)
	return string(b[:runtime.Stack(b, true)])
}

// faults does to a child what the plan says.
func (e *episode) faults(k int, start time.Time) {
	c, f := e.children[k], &e.facts.kids[k]
	for _, x := range e.p.Faults {
		if x.Child != k {
			continue
		}
		time.Sleep(time.Until(start.Add(x.After)))
		switch x.Kind {
		case Cut:
			f.Cut = true
			c.order(order{Cut: true})
		case StopCont, LongStop:
			f.Stopped = true
			f.Silenced = f.Silenced || x.Kind == LongStop
			c.signal(syscall.SIGSTOP)
			if x.Kind == LongStop && stopped(c.cmd.Process.Pid) {
				floors(e.t.ledger.region(e.i), &e.p, k)
			}
			time.Sleep(x.Hold)
			c.signal(syscall.SIGCONT)
		case StopKill:
			f.Stopped = true
			c.signal(syscall.SIGSTOP)
			time.Sleep(x.Hold)
			f.KilledAt = now()
			c.signal(syscall.SIGKILL)
		case Kill:
			f.KilledAt = now()
			c.signal(syscall.SIGKILL)
		}
	}
}

// stopped waits until all threads of a process have stopped, where the system tells.
func stopped(pid int) bool {
	running := func(thread string) bool {
		b, err := os.ReadFile(thread)
		_, state, _ := strings.Cut(string(b), ") ")
		return err == nil && !strings.HasPrefix(state, "T")
	}
	for range 1000 {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if !slices.ContainsFunc(threads, running) {
			return len(threads) > 0
		}
		time.Sleep(100 * time.Microsecond)
	}
	return false
}
