// Package demo is what `nova demo` does: a receiver process asks sender
// processes, by Nova RPC, to stream to it over each lane, and checks and times
// what arrives.
package demo

import (
	"time"
)

// Line is one line of the receiver's report.
type Line struct {
	Lane  *Lane  `json:"lane,omitempty"`
	Kill  *Kill  `json:"kill,omitempty"`
	Error string `json:"error,omitempty"`
}

// Report is everything.
type Report struct {
	Lanes   []Lane  `json:"lanes"`
	Kill    *Kill   `json:"kill"`
	Seconds float64 `json:"seconds"`
}

// OK tells whether everything arrived as it was sent.
func (r Report) OK() bool {
	for _, l := range r.Lanes {
		if !l.Verified() {
			return false
		}
	}
	return len(r.Lanes) > 0 && r.Kill != nil && r.Kill.Whole && r.Kill.Kind == "Dropped"
}

// Lane is what was measured of one lane.
type Lane struct {
	Name            string        `json:"name"`
	Files           int           `json:"files"`
	Bytes           int64         `json:"bytes"`
	Wrong           int           `json:"wrong"` // files and values that differ
	GBs             float64       `json:"gbPerSecond"`
	FramesPerSecond float64       `json:"framesPerSecond"` // of 64-byte records
	TripP50         time.Duration `json:"tripP50"`
	TripP99         time.Duration `json:"tripP99"`
	AttachP50       time.Duration `json:"attachP50"`
}

// Verified tells whether everything arrived as it was sent.
func (l Lane) Verified() bool { return l.Wrong == 0 && l.Files > 0 }

// Kill is what the receiver was told when a sender was killed.
type Kill struct {
	PID    int           `json:"pid"`
	Frames uint64        `json:"frames"`
	Whole  bool          `json:"whole"`
	Kind   string        `json:"kind"`
	After  time.Duration `json:"after"`
}

// Job is what the receiver asks of a sender, in the handler demo.run.
type Job struct {
	Kind   string `json:"kind"` // files, records, echo, attach, flood
	Handle string `json:"handle"`
	Lane   string `json:"lane"`
	Path   string `json:"path,omitempty"`
	Share  int    `json:"share,omitempty"` // of files: this one's number
	Of     int    `json:"of,omitempty"`    // of how many
	Count  int    `json:"count,omitempty"`
}

// Answer is what a sender has measured.
type Answer struct {
	PID    int             `json:"pid"`
	Handle string          `json:"handle,omitempty"`
	Times  []time.Duration `json:"times,omitempty"`
}

// Record is a value that fits, with its commit word, one line.
type Record struct {
	Seq uint64
	Sum uint64
	Pad [5]uint64
}

// fill makes the record with a number.
func (r *Record) fill(seq uint64) {
	r.Seq = seq
	r.Pad[0], r.Pad[1], r.Pad[2], r.Pad[3], r.Pad[4] = seq+1, seq^2, seq+3, seq^4, seq+5
	r.Sum = seq ^ r.Pad[0] ^ r.Pad[1] ^ r.Pad[2] ^ r.Pad[3] ^ r.Pad[4]
}

// whole tells whether the record is as fill has made it.
func (r *Record) whole() bool {
	return r.Sum == r.Seq^r.Pad[0]^r.Pad[1]^r.Pad[2]^r.Pad[3]^r.Pad[4] && r.Pad[4] == r.Seq+5
}
