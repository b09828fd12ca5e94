package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/novastream/novastream/internal/torture"
)

type tortureCmd struct {
	Lane     []string      `enum:"local,local-onering,shm,shm-onering,tcp,rdma-soft" default:"local,local-onering,shm,shm-onering,tcp,rdma-soft" help:"A lane to torture, again for each: ${enum}."`
	Kills    int           `help:"How many SIGKILLs, over all lanes." placeholder:"N"`
	Duration time.Duration `help:"How long at most; a minute, if no number of kills is given."`
	Seed     uint64        `help:"What the run follows from, as far as processes allow; random by default." placeholder:"N"`
	Episode  *uint64       `help:"Run this episode of one lane again and again, until something is found." placeholder:"N"`
	Workers  int           `help:"How many episodes at the same time." default:"6"`
	Soak     bool          `help:"No faults: streams come and go, and what the processes hold and use stays flat; ten minutes by default."`
	Sabotage string        `enum:",loss,tail,double,reorder,tear,end,leak" default:"" hidden:"" help:"Do something wrong on purpose: ${enum}."`
}

// Run tortures, prints what came of it, and fails when something was found.
func (x tortureCmd) Run(ctx context.Context, c *cli) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if x.Episode != nil && len(x.Lane) != 1 {
		return errors.New("--episode is one of a lane: give --lane too")
	}
	switch {
	case x.Soak && x.Kills > 0:
		return errors.New("--soak kills nobody: give --duration, not --kills")
	case x.Soak && x.Duration == 0:
		x.Duration = 10 * time.Minute
	case x.Kills == 0 && x.Duration == 0:
		x.Duration = time.Minute
	}
	if x.Seed == 0 {
		x.Seed = rand.Uint64()
	}
	t := &torture.Torture{
		Child: []string{self, "victim"}, Seed: x.Seed, Kills: x.Kills, Duration: x.Duration, Workers: x.Workers, Only: x.Episode, Soak: x.Soak, Sabotage: x.Sabotage,
		Log: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
	}
	for _, name := range x.Lane {
		l, err := torture.Named(name)
		if err != nil {
			return err
		}
		t.Lanes = append(t.Lanes, l)
	}
	t.Log("seed %d", x.Seed)
	rep, err := t.Run(ctx)
	var out error
	if c.JSON {
		out = json.NewEncoder(os.Stdout).Encode(rep)
	} else {
		out = rep.Print(os.Stdout)
	}
	switch {
	case err != nil:
		return err
	case !rep.OK():
		return fmt.Errorf("%d things that must not be", rep.Found)
	}
	return out
}

type victimCmd struct {
	Lane   string `required:""`
	Ledger string `required:""`
}

// Run is a child of a torture.
func (v victimCmd) Run(ctx context.Context, c *cli) error {
	l, err := torture.Named(v.Lane)
	if err != nil {
		return err
	}
	return torture.Serve(ctx, l, c.Dir, v.Ledger, os.Stdin, os.Stdout)
}
