package novastream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/control"
)

// twoNodes makes a receiving and a sending node that meet over shared memory.
func twoNodes(t testing.TB) (rx, tx *Streaming) {
	dir, err := os.MkdirTemp("", "nv")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	open := func() *Streaming {
		n, err := control.Listen(context.Background(), control.WithDir(dir))
		require.NoError(t, err)
		s, err := New(n)
		require.NoError(t, err)
		t.Cleanup(func() { s.Close(); n.Close() })
		return s
	}
	return open(), open()
}

// spin passes a short time of no fixed length.
func spin(n int) {
	for range rand.IntN(n + 1) {
		_ = rand.Uint64()
	}
}

// Either end may be closed or cancelled from another goroutine at any moment of
// any call: the memory goes only when no call can touch it. A call that does
// touches an unmapped page, which ends the test binary.
func TestEndsThatAreClosedUnderACall(t *testing.T) {
	ctx := context.Background()
	sends := map[string]func(tx *Sender[tick]) error{
		"try": func(tx *Sender[tick]) error {
			var v tick
			for {
				if err := tx.TrySend(&v); err != nil && err != ErrFull {
					return err
				}
			}
		},
		"send": func(tx *Sender[tick]) error {
			for {
				if err := tx.Send(ctx, tick{}); err != nil {
					return err
				}
			}
		},
		"slots": func(tx *Sender[tick]) error {
			for {
				for p := range tx.Slots(8) {
					*p = tick{}
				}
				if err := tx.Progress(); err != nil {
					return err
				}
			}
		},
		"reserve": func(tx *Sender[tick]) error {
			for {
				p, err := tx.Reserve()
				if err == nil {
					*p = tick{}
					err = tx.Commit()
				}
				if err != nil && err != ErrFull {
					return err
				}
			}
		},
		"batch": func(tx *Sender[tick]) error {
			for {
				b, err := tx.ReserveBatch(4)
				if err == nil {
					*b.At(0) = tick{}
					err = b.Commit(b.Len())
				}
				if err != nil && err != ErrFull {
					return err
				}
			}
		},
	}
	recvs := map[string]func(rx *Receiver[tick]) error{
		"recv": func(rx *Receiver[tick]) error {
			for {
				if _, err := rx.Recv(ctx); err != nil {
					return err
				}
			}
		},
		"slots": func(rx *Receiver[tick]) error {
			for {
				for p := range rx.Slots(8) {
					_ = *p
				}
				if _, err := rx.TryRecv(); err != nil && err != ErrEmpty {
					return err
				}
			}
		},
		"borrow": func(rx *Receiver[tick]) error {
			for {
				if l, err := rx.Borrow(8); err == nil {
					_ = *l.At(0)
					l.Release()
					continue
				}
				if _, err := rx.TryRecv(); err != nil && err != ErrEmpty {
					return err
				}
			}
		},
	}
	ends := map[string]func(rx *Receiver[tick], tx *Sender[tick]){
		"sender closes":    func(_ *Receiver[tick], tx *Sender[tick]) { tx.Close() },
		"receiver closes":  func(rx *Receiver[tick], _ *Sender[tick]) { rx.Close() },
		"receiver cancels": func(rx *Receiver[tick], _ *Sender[tick]) { _ = rx.Cancel("enough") },
		"receiver stops":   func(rx *Receiver[tick], _ *Sender[tick]) { _ = rx.Stop(ctx) },
		"all at once": func(rx *Receiver[tick], tx *Sender[tick]) {
			go rx.Close()
			go rx.Cancel("enough")
			tx.Close()
		},
	}
	rounds := 6
	rs, ts := twoNodes(t)
	for ename, end := range ends {
		for sname, send := range sends {
			for rname, recv := range recvs {
				for _, one := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s/%s/onering=%v", ename, sname, rname, one), func(t *testing.T) {
						for range rounds {
							opts := []CreateOption{Capacity(16)}
							if one {
								if sname == "slots" || sname == "batch" {
									return // they serve a ring of the sender's own
								}
								opts = append(opts, Shared(2), OneRing())
							}
							rx, err := Create[tick](rs, opts...)
							require.NoError(t, err)
							tx, err := Attach[tick](ctx, ts, rx.Handle())
							require.NoError(t, err)
							var wg sync.WaitGroup
							wg.Go(func() { _ = send(tx) })
							wg.Go(func() { _ = recv(rx) })
							spin(4000)
							end(rx, tx)
							if one { // the stream outlives its sender
								rx.Close()
							}
							wg.Wait()
							rx.Close()
							tx.Close()
						}
					})
				}
			}
		}
	}
	for ename := range ends {
		for _, one := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/bytes/onering=%v", ename, one), func(t *testing.T) {
				for range 8 * rounds {
					opts := []CreateOption{Capacity(64)}
					if one {
						opts = append(opts, Shared(2), OneRing())
					}
					rx, err := CreateBytes(rs, opts...)
					require.NoError(t, err)
					tx, err := AttachBytes(ctx, ts, rx.Handle())
					require.NoError(t, err)
					var wg sync.WaitGroup
					wg.Go(func() {
						for n := 0; tx.Send(ctx, make([]byte, n%500)) == nil; n += 77 {
						}
					})
					wg.Go(func() {
						for {
							if l, err := rx.Borrow(4); err == nil {
								l.Release()
							} else if _, err := rx.Recv(ctx, nil); err != nil {
								return
							}
						}
					})
					spin(4000)
					switch ename {
					case "sender closes":
						tx.Close()
					case "receiver cancels":
						_ = rx.Cancel("enough")
					case "receiver stops":
						_ = rx.Stop(ctx)
					case "all at once":
						go rx.Cancel("enough")
						go rx.Close()
						tx.Close()
					}
					rx.Close()
					wg.Wait()
					tx.Close()
				}
			})
		}
	}
	require.Eventually(t, func() bool {
		a, b := rs.Stats(), ts.Stats()
		return a.Inbound == 0 && a.Memory == 0 && b.Outlets == 0
	}, 30*time.Second, time.Millisecond)
}

// Stop takes no claim out of the hands of a holder that does not know of it yet: it
// still writes there. What it commits arrives, and then the end.
func TestStopLeavesAClaimToItsHolder(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	rxs, txs := twoNodes(t)
	rx, err := Create[tick](rxs, Shared(2), OneRing())
	require.NoError(t, err)
	defer rx.Close()
	tx, err := Attach[tick](ctx, txs, rx.Handle())
	require.NoError(t, err)
	v, err := tx.Reserve()
	require.NoError(t, err)
	require.NoError(t, rx.Stop(ctx))
	<-tx.Done()
	f, err := rx.Recv(ctx)
	require.NoError(t, err)
	require.Equal(t, KindAttached, f.Kind)
	_, err = rx.TryRecv()
	require.ErrorIs(t, err, ErrEmpty)
	*v = tick{Seq: 7}
	require.ErrorIs(t, tx.Commit(), ErrCancelled)
	f, err = rx.Recv(ctx)
	require.NoError(t, err)
	require.Equal(t, KindData, f.Kind)
	require.Equal(t, tick{Seq: 7}, f.Value)
	f, err = rx.Recv(ctx)
	require.NoError(t, err)
	require.Equal(t, KindCancelled, f.Kind)
}
