package novastream

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/control"
)

type tick struct {
	Seq  uint64
	A, B float64
}

func testNode(t testing.TB, dir string, opts ...control.Option) *Streaming {
	n, err := control.Listen(context.Background(), append([]control.Option{control.WithDir(dir)}, opts...)...)
	require.NoError(t, err)
	s, err := New(n)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close(); n.Close() })
	return s
}

func TestSmoke(t *testing.T) {
	for _, lane := range []string{"local", "shm", "tcp"} {
		for _, one := range []bool{false, true} {
			t.Run(fmt.Sprint(lane, one), func(t *testing.T) {
				dir, err := os.MkdirTemp("", "nv")
				require.NoError(t, err)
				t.Cleanup(func() { os.RemoveAll(dir) })
				var a, b *Streaming
				switch lane {
				case "local":
					a = testNode(t, dir)
					b = a
				case "shm":
					a, b = testNode(t, dir), testNode(t, dir)
				case "tcp":
					a, b = testNode(t, dir, control.WithoutUnix(), control.WithTCP("127.0.0.1:0")), testNode(t, dir, control.WithoutUnix(), control.WithTCP("127.0.0.1:0"))
				}
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				opts := []CreateOption{}
				if one {
					opts = append(opts, Shared(4), OneRing())
				}
				rx, err := Create[tick](a, opts...)
				require.NoError(t, err)
				const n = 200000
				done := make(chan error, 1)
				go func() {
					tx, err := Attach[tick](ctx, b, rx.Handle())
					if err != nil {
						done <- err
						return
					}
					if string(tx.Lane()) != lane {
						done <- fmt.Errorf("lane %s", tx.Lane())
						return
					}
					for i := uint64(0); i < n; i++ {
						if err := tx.Send(ctx, tick{Seq: i}); err != nil {
							done <- err
							return
						}
					}
					done <- tx.Finalize(ctx)
				}()
				next := uint64(0)
				start := time.Now()
				for {
					f, err := rx.Recv(ctx)
					if err != nil {
						t.Log("tail", next)
						select {
						case e := <-done:
							t.Log("sender", e)
						default:
						}
					}
					require.NoError(t, err)
					if f.Kind == KindData {
						require.Equal(t, next, f.Value.Seq)
						require.Equal(t, next, f.Seq)
						next++
					} else {
						t.Log(f.Kind, f.Sender, f.Err)
					}
					if f.Kind == KindFinalized {
						break
					}
				}
				t.Log(time.Since(start))
				require.Equal(t, uint64(n), next)
				require.NoError(t, <-done)
				if one {
					require.NoError(t, rx.Cancel("done"))
					f, err := rx.Recv(ctx)
					require.NoError(t, err)
					require.Equal(t, KindCancelled, f.Kind)
				}
				_, err = rx.Recv(ctx)
				require.ErrorIs(t, err, io.EOF)
				t.Logf("%+v", a.Stats())
			})
		}
	}
}
