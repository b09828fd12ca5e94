package control

import (
	"crypto/rand"
	"fmt"
	"sync"
	"time"
)

// Token is a one-time right to something, hard to guess.
type Token [16]byte

// maxGrants bounds how many tokens wait to be redeemed.
const maxGrants = 1 << 16

// Grants gives out one-time tokens. The zero value is ready. Its methods may be
// called concurrently.
type Grants struct {
	mu   sync.Mutex
	open map[Token]grant
}

type grant struct {
	value   any
	expires time.Time
}

// Issue makes a token for v that can be redeemed once within d.
func (g *Grants) Issue(d time.Duration, v any) (Token, error) {
	var t Token
	rand.Read(t[:])
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		g.open = map[Token]grant{}
	}
	if len(g.open) >= maxGrants {
		for k, v := range g.open {
			if now.After(v.expires) {
				delete(g.open, k)
			}
		}
		if len(g.open) >= maxGrants {
			return Token{}, fmt.Errorf("%w: %d tokens wait to be redeemed", ErrGrant, len(g.open))
		}
	}
	g.open[t] = grant{v, now.Add(d)}
	return t, nil
}

// Redeem answers what the token was issued for, once. ErrGrant says that it is
// unknown, used or expired, and not which.
func (g *Grants) Redeem(t Token) (any, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v, ok := g.open[t]
	delete(g.open, t)
	if !ok || time.Now().After(v.expires) {
		return nil, ErrGrant
	}
	return v.value, nil
}
