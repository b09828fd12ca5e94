package torture

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"sync"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/internal/holding"
)

// host is a process that takes part: the survivor or a child.
type host struct {
	*node
	lane   *Lane
	ledger *Ledger
}

// job is a host's part of an episode. Handles are known to those who send.
type job struct {
	Plan    Plan
	Me      int
	Region  int
	Handles []novastream.Handle `json:",omitempty"`
}

// order is a line to a child, and reply one of its own.
type order struct {
	Job  *job `json:",omitempty"`
	Stop bool `json:",omitempty"` // the streams that the job receives
	Cut  bool `json:",omitempty"` // all connections
}

type reply struct {
	Ready   bool                `json:",omitempty"`
	Handles []novastream.Handle `json:",omitempty"`
	Over    bool                `json:",omitempty"` // the job
	Cut     int                 `json:",omitempty"` // connections
	Error   string              `json:",omitempty"`
	Held    *held               `json:",omitempty"` // with Over, now and then
}

// Serve is a child: it takes orders until in ends.
func Serve(ctx context.Context, l *Lane, dir, ledger string, in io.Reader, to io.Writer) error {
	n, err := l.open(ctx, dir)
	if err != nil {
		return err
	}
	defer n.close()
	books, err := OpenLedger(ledger)
	if err != nil {
		return err
	}
	// The books stay mapped to the end of the process: a sender may still write.
	c := &served{host: host{n, l, books}, out: json.NewEncoder(to)}
	c.say(reply{Ready: true})
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return err
		}
		c.obey(ctx, o)
	}
	return nil
}

// served is a child's side of its pipes.
type served struct {
	host
	mu  sync.Mutex
	out *json.Encoder
	job *job
	rs  *receivers

	jobs int // that are over; there is one at a time
}

func (c *served) say(r reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.out.Encode(r) // a parent that is gone closes stdin too
}

func (c *served) obey(ctx context.Context, o order) {
	switch {
	case o.Cut:
		c.floors()
		c.say(reply{Cut: cutAll()})
	case o.Stop && c.rs != nil:
		c.rs.stop()
	case o.Job == nil:
	case o.Job.Me == o.Job.Plan.Receiver:
		c.job, c.rs = nil, nil
		rs, handles, err := c.receive(ctx, o.Job)
		if err != nil {
			c.say(reply{Error: err.Error()})
			return
		}
		c.rs = rs
		c.say(reply{Handles: handles})
		go func() {
			rs.wg.Wait()
			c.over()
		}()
	default:
		c.job, c.rs = o.Job, nil
		go func() {
			c.send(ctx, o.Job)
			c.over()
		}()
	}
}

func (c *served) over() {
	r := reply{Over: true}
	if c.jobs++; c.jobs%heldEvery == 0 {
		r.Held = &held{holding.Now(), memoryNow(), len(c.Node.Peers())}
	}
	c.say(r)
}

// floors notes what has been committed before a cut, which must not lose it.
func (c *served) floors() {
	if c.job != nil {
		floors(c.ledger.region(c.job.Region), &c.job.Plan, c.job.Me)
	}
}

// floors notes what a host's senders have committed until now.
func floors(g region, p *Plan, host int) {
	for _, s := range p.Streams {
		for _, x := range s.Senders {
			for k := range x.Rounds {
				if rec := g.sender(x.Record + k); x.Host == host {
					rec.set(sFloor, rec.get(sCommitted)+1)
				}
			}
		}
	}
}
