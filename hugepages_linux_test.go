package novastream_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

const shmemEnabled = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

// What was obtained is reported, a lack is logged with its remedy, and frames go
// through either way: a ring of each sender, and a shared one.
func TestHugePages(t *testing.T) {
	setting, err := os.ReadFile(shmemEnabled)
	if err != nil {
		setting = []byte("[never]")
	}
	given := !strings.Contains(string(setting), "[never]") && !strings.Contains(string(setting), "[deny]")
	for name, opts := range map[string][]novastream.CreateOption{
		"ring per sender": nil,
		"one ring":        {novastream.Shared(2), novastream.OneRing()},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			var logged bytes.Buffer
			a, b := twoNodes(t, ctx, slog.New(slog.NewTextHandler(&logged, nil)))
			rx, err := novastream.Create[[7]uint64](a, append(opts, novastream.Capacity(1<<16), novastream.HugePages())...)
			require.NoError(t, err)
			for range 2 { // the second time in the same memory, where that is possible
				tx, err := novastream.Attach[[7]uint64](ctx, b, rx.Handle())
				require.NoError(t, err)
				require.Equal(t, novastream.LaneShm, tx.Lane())
				require.NoError(t, tx.Send(ctx, [7]uint64{6: 42}))
				for {
					f, err := rx.Recv(ctx)
					require.NoError(t, err)
					if f.Kind == novastream.KindData {
						require.Equal(t, [7]uint64{6: 42}, f.Value)
						break
					}
				}
				if st := a.Stats(); given {
					require.GreaterOrEqual(t, st.HugeBytes, int64(2<<20))
					require.LessOrEqual(t, st.HugeBytes, st.Memory)
				} else {
					require.Zero(t, st.HugeBytes)
				}
				require.NoError(t, tx.Detach(ctx))
				f, err := rx.Recv(ctx)
				require.NoError(t, err)
				require.Equal(t, novastream.KindDetached, f.Kind)
			}
			require.NoError(t, rx.Close())
			require.Zero(t, a.Stats().HugeBytes)
			a.Close() // nobody logs any more
			require.Equal(t, !given, strings.Contains(logged.String(), "not obtained"), logged.String())
			if !given {
				require.Contains(t, logged.String(), shmemEnabled)
			}
		})
	}
}

// twoNodes is two nodes of one host, the first with a log.
func twoNodes(t testing.TB, ctx context.Context, log *slog.Logger) (a, b *novastream.Streaming) {
	dir, err := os.MkdirTemp("", "nv")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	make := func(opts ...novastream.Option) *novastream.Streaming {
		n, err := control.Listen(ctx, control.WithDir(dir))
		require.NoError(t, err)
		s, err := novastream.New(n, opts...)
		require.NoError(t, err)
		t.Cleanup(func() { s.Close(); n.Close() })
		return s
	}
	return make(novastream.WithLogger(log)), make()
}
