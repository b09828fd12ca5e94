package stream

import "github.com/novastream/novastream/internal/lane"

// Traffic is what the outlet has carried over a network, zero where its lane
// crosses none. Any goroutine may call it at any time.
func (o *Outlet) Traffic() lane.Traffic {
	o.mu.Lock()
	end := o.end
	o.mu.Unlock()
	if end == nil || end.Traffic == nil {
		return lane.Traffic{}
	}
	return end.Traffic()
}
