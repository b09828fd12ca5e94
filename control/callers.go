package control

import "fmt"

// caller is a process on this host, as this namespace sees it: those of other namespaces,
// which it does not see, are one for each user.
type caller struct{ uid, pid int }

// maxConns is how many connections of one process are taken, greeted or not. A node
// needs one, or two when both sides dial at once.
const maxConns = 1024

// enter counts a connection of a process, and leave its end.
func (n *Node) enter(who caller) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns[who] >= maxConns {
		return fmt.Errorf("%w: process %d of user %d has %d connections open: let it use the one that it has", ErrPeerRefused, who.pid, who.uid, maxConns)
	}
	n.conns[who]++
	return nil
}

func (n *Node) leave(who caller) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns[who]--; n.conns[who] == 0 {
		delete(n.conns, who)
	}
}
