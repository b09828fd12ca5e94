//go:build unix

package control

import (
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// Nodes that start while others look at the directory are published all the same:
// an entry that is being made is no stale one.
func TestPublishWhileOthersLook(t *testing.T) {
	d := Directory(t.TempDir())
	stop := make(chan struct{})
	var looks sync.WaitGroup
	for range 4 {
		looks.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, err := d.List(t.Context())
					require.NoError(t, err)
				}
			}
		})
	}
	var nodes sync.WaitGroup
	for range 4 {
		nodes.Go(func() {
			for range 200 {
				id := uuid.New()
				e, err := d.Publish(t.Context(), Entry{Instance: id, Worker: WorkerOf(id)})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := d.Lookup(t.Context(), WorkerOf(id)); err != nil {
					t.Error(err)
				}
				require.NoError(t, e.Close())
			}
		})
	}
	nodes.Wait()
	close(stop)
	looks.Wait()
}

// An entry that is replaced by its node's next life, while somebody who found it stale
// is about to remove it, is not removed.
func TestPublishAgainWhileOthersRemove(t *testing.T) {
	dir := directory(t.TempDir())
	id := uuid.New()
	e := Entry{Instance: id, Worker: WorkerOf(id)}
	first, err := dir.Publish(t.Context(), e)
	require.NoError(t, err)
	require.NoError(t, first.(*published).f.Close()) // it was killed
	f, err := os.Open(dir.path(e.Worker))
	require.NoError(t, err)
	require.NoError(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX)) // somebody finds it stale
	done := make(chan error, 1)
	var second io.Closer
	go func() {
		var err error
		second, err = dir.Publish(t.Context(), e)
		done <- err
	}()
	select {
	case err := <-done:
		require.Fail(t, "replaced under somebody who may remove it", "%v", err)
	case <-time.After(20 * time.Millisecond):
	}
	require.NoError(t, os.Remove(dir.path(e.Worker)))
	require.NoError(t, f.Close())
	require.NoError(t, <-done)
	_, err = dir.Lookup(t.Context(), e.Worker)
	require.NoError(t, err)
	_, err = dir.Publish(t.Context(), e)
	require.ErrorContains(t, err, "another node has the same id")
	require.NoError(t, second.Close()) // it has lived until here
}
