package torture

import "os"

// What a sender, or the torturer, does wrong on purpose, so that tests and doubters
// see that it is found.
const (
	SabotageLoss    = "loss"    // a frame is left out
	SabotageTail    = "tail"    // the book says more than was sent
	SabotageDouble  = "double"  // a frame is sent twice
	SabotageReorder = "reorder" // two frames change places
	SabotageTear    = "tear"    // a byte of a frame is changed
	SabotageEnd     = "end"     // a sender that says it has finalized has not
	SabotageLeak    = "leak"    // each episode leaves a descriptor
)

// Sabotages are all of them.
var Sabotages = []string{SabotageLoss, SabotageTail, SabotageDouble, SabotageReorder, SabotageTear, SabotageEnd, SabotageLeak}

const sabotagedFrame = 20

// number is the number that the n-th frame gets.
func (r *round) number(n uint64) uint64 {
	switch s := r.p.Sabotage; {
	case s == SabotageLoss && n >= sabotagedFrame:
		return n + 1
	case s == SabotageDouble && n > sabotagedFrame:
		return n - 1
	case s == SabotageReorder && n == sabotagedFrame:
		return n + 1
	case s == SabotageReorder && n == sabotagedFrame+1:
		return n - 1
	}
	return n
}

// value and frame make the n-th frame.
func (r *round) value(v *Value, n uint64) {
	v.fill(r.id, r.number(n))
	if r.p.Sabotage == SabotageTear && n == sabotagedFrame {
		v.Pad[1] ^= 1
	}
}

func (r *round) frame(b []byte, n uint64) {
	fill(b, r.id, r.number(n))
	if r.p.Sabotage == SabotageTear && n == sabotagedFrame {
		b[len(b)-1] ^= 1
	}
}

// leak leaves a descriptor and a goroutine, with SabotageLeak.
func leak() {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	go func() {
		_, _ = r.Read(make([]byte, 1))
		w.Close()
	}()
}
