package novastream_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/soft"
)

// Two nodes that write into each other's registered memory, with the provider that
// needs no device.
func ExampleRDMA() {
	ctx := context.Background()
	dir, done := tempDir()
	defer done()
	open := func() *novastream.Streaming {
		node, err := control.Listen(ctx, control.WithDir(dir), control.WithTCP("127.0.0.1:0"))
		check(err)
		s, err := novastream.New(node, novastream.RDMA("soft", ""))
		check(err)
		return s
	}
	here, there := open(), open()
	rx, err := novastream.Create[int64](here)
	check(err)
	tx, err := novastream.Attach[int64](ctx, there, rx.Handle(), novastream.Lanes(novastream.LaneRDMA))
	check(err)
	fmt.Println(tx.Lane())
	go func() {
		for i := range int64(3) {
			check(tx.Send(ctx, i*i))
		}
		check(tx.Finalize(ctx))
	}()
	for v, err := range rx.Values(ctx) {
		check(err)
		fmt.Println(v)
	}
	for _, s := range []*novastream.Streaming{there, here} {
		check(s.Close())
		check(s.Node().Close())
	}
	// Output:
	// rdma
	// 0
	// 1
	// 4
}

func tempDir() (string, func()) {
	dir, err := os.MkdirTemp("", "nv")
	check(err)
	return dir, func() { os.RemoveAll(dir) }
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

type downProvider struct{ *soft.Provider }

func (downProvider) Name() string { return "down" }

func TestRDMAOption(t *testing.T) {
	ctx := t.Context()
	dir, done := tempDir()
	defer done()
	listen := func() *control.Node {
		n, err := control.Listen(ctx, control.WithDir(dir), control.WithoutUnix(), control.WithTCP("127.0.0.1:0"))
		require.NoError(t, err)
		t.Cleanup(func() { n.Close() })
		return n
	}
	open := func(opts ...novastream.Option) *novastream.Streaming {
		s, err := novastream.New(listen(), opts...)
		require.NoError(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	}
	rdma.Register(downProvider{soft.New(soft.WithDevices(rdma.DeviceInfo{Name: "soft9", Port: rdma.PortDown}))})

	n := listen()
	_, err := novastream.New(n, novastream.RDMA("carrier-pigeon", ""))
	require.ErrorIs(t, err, novastream.ErrConfig)
	require.ErrorIs(t, err, rdma.ErrUnknownProvider)
	require.ErrorContains(t, err, "soft")
	_, err = novastream.New(n, novastream.RDMA("soft", "mlx9_9"))
	require.ErrorIs(t, err, novastream.ErrLaneUnavailable)
	require.ErrorIs(t, err, rdma.ErrNoDevice)
	_, err = novastream.New(n, novastream.RDMA("down", ""))
	require.ErrorIs(t, err, novastream.ErrLaneUnavailable)
	require.ErrorIs(t, err, rdma.ErrPort)
	s, err := novastream.New(n, novastream.RDMA("soft", ""))
	require.NoError(t, err, "a New that has failed leaves the node as it was")
	t.Cleanup(func() { s.Close() })

	// Without the option soft is never used, and asked for by name the lane is an
	// error that says why; left to choose, both sides take another.
	plain := open()
	for _, c := range []struct{ from, to *novastream.Streaming }{{plain, s}, {s, plain}} {
		rx, err := novastream.Create[int64](c.to)
		require.NoError(t, err)
		_, err = novastream.Attach[int64](ctx, c.from, rx.Handle(), novastream.Lanes(novastream.LaneRDMA))
		require.ErrorIs(t, err, novastream.ErrLaneUnavailable)
		require.ErrorContains(t, err, "verbs")
		tx, err := novastream.Attach[int64](ctx, c.from, rx.Handle())
		require.NoError(t, err)
		require.Equal(t, novastream.LaneTCP, tx.Lane())
		require.NoError(t, tx.Finalize(ctx))
		require.NoError(t, rx.Close())
	}
}

// A sender and a receiver whose providers differ, or whose devices do not reach
// each other, do not use the lane.
func TestRDMAUnreachable(t *testing.T) {
	ctx := t.Context()
	dir, done := tempDir()
	defer done()
	rdma.Register(otherProvider{soft.New()})
	open := func(provider string) *novastream.Streaming {
		n, err := control.Listen(ctx, control.WithDir(dir), control.WithoutUnix(), control.WithTCP("127.0.0.1:0"))
		require.NoError(t, err)
		s, err := novastream.New(n, novastream.RDMA(provider, ""))
		require.NoError(t, err)
		t.Cleanup(func() { s.Close(); n.Close() })
		return s
	}
	here, there := open("soft"), open("other")
	rx, err := novastream.Create[int64](here)
	require.NoError(t, err)
	_, err = novastream.Attach[int64](ctx, there, rx.Handle(), novastream.Lanes(novastream.LaneRDMA))
	require.ErrorIs(t, err, novastream.ErrLaneUnavailable)
	require.ErrorContains(t, err, `"other"`)
	tx, err := novastream.Attach[int64](ctx, there, rx.Handle())
	require.NoError(t, err)
	require.Equal(t, novastream.LaneTCP, tx.Lane())

	// And one whose device is removed after it was opened.
	there = open("other")
	rx, err = novastream.Create[int64](open("other"))
	require.NoError(t, err)
	lastOther.Remove()
	_, err = novastream.Attach[int64](ctx, there, rx.Handle(), novastream.Lanes(novastream.LaneRDMA))
	require.ErrorIs(t, err, novastream.ErrLaneUnavailable)
	tx, err = novastream.Attach[int64](ctx, there, rx.Handle())
	require.NoError(t, err)
	require.Equal(t, novastream.LaneTCP, tx.Lane())
}

type named struct {
	*soft.Provider
	name string
}

func (n named) Name() string { return n.name }

// Limits and path MTUs that do not fit are errors that say so, and leave nothing.
func TestRDMALimits(t *testing.T) {
	ctx := t.Context()
	dir, done := tempDir()
	defer done()
	open := func(name string, info rdma.DeviceInfo) *novastream.Streaming {
		info.Name = name + "0"
		rdma.Register(named{soft.New(soft.WithDevices(info)), name})
		n, err := control.Listen(ctx, control.WithDir(dir), control.WithoutUnix(), control.WithTCP("127.0.0.1:0"))
		require.NoError(t, err)
		s, err := novastream.New(n, novastream.RDMA(name, ""))
		require.NoError(t, err)
		t.Cleanup(func() { s.Close(); n.Close() })
		return s
	}
	attach := func(rx, tx *novastream.Streaming) error {
		r, err := novastream.Create[int64](rx, novastream.Capacity(1<<14))
		require.NoError(t, err)
		_, err = novastream.Attach[int64](ctx, tx, r.Handle(), novastream.Lanes(novastream.LaneRDMA))
		require.NoError(t, r.Close())
		require.Eventually(t, func() bool { return rx.Stats().Memory == 0 && tx.Stats().Outlets == 0 }, 10*time.Second, time.Millisecond)
		return err
	}
	small := rdma.DeviceInfo{Limits: rdma.Limits{MaxRegion: 64 << 10}}
	large := open("limited", rdma.DeviceInfo{})
	err := attach(open("limited", small), large)
	require.ErrorIs(t, err, novastream.ErrLimit)
	require.ErrorContains(t, err, "region")
	err = attach(large, open("limited", small))
	require.ErrorIs(t, err, novastream.ErrLimit)
	require.ErrorIs(t, err, rdma.ErrLimit)

	err = attach(open("mixed", rdma.DeviceInfo{MTU: 1024}), open("mixed", rdma.DeviceInfo{MTU: 4096}))
	require.ErrorIs(t, err, novastream.ErrLaneUnavailable)
	require.ErrorContains(t, err, "MTU")

	rdma.Register(named{soft.New(soft.WithDevices(rdma.DeviceInfo{Name: "tiny0", Limits: rdma.Limits{MaxSend: 4}})), "tiny"})
	n, err := control.Listen(ctx, control.WithDir(dir), control.WithoutUnix(), control.WithTCP("127.0.0.1:0"))
	require.NoError(t, err)
	defer n.Close()
	_, err = novastream.New(n, novastream.RDMA("tiny", ""))
	require.ErrorIs(t, err, rdma.ErrLimit)
}

// A device that vanishes between the attach and the first send: both sides are told
// once that the lane has failed, and nothing is left.
func TestRDMAVanishes(t *testing.T) {
	for name, vanish := range map[string]func(rx, tx *soft.Device){
		"the sender's device":   func(_, tx *soft.Device) { tx.Remove() },
		"the receiver's device": func(rx, _ *soft.Device) { rx.Remove() },
		"the path":              func(rx, tx *soft.Device) { rx.Cut(0); tx.Cut(0) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			dir, done := tempDir()
			defer done()
			rdma.Register(otherProvider{soft.New()})
			var nodes [2]*novastream.Streaming
			var devices [2]*soft.Device
			for i := range nodes {
				n, err := control.Listen(ctx, control.WithDir(dir), control.WithoutUnix(), control.WithTCP("127.0.0.1:0"))
				require.NoError(t, err)
				nodes[i], err = novastream.New(n, novastream.RDMA("other", ""))
				require.NoError(t, err)
				devices[i] = lastOther
				defer func() { nodes[i].Close(); n.Close() }()
			}
			rx, err := novastream.Create[uint64](nodes[0], novastream.Capacity(64))
			require.NoError(t, err)
			tx, err := novastream.Attach[uint64](ctx, nodes[1], rx.Handle(), novastream.Lanes(novastream.LaneRDMA))
			require.NoError(t, err)
			vanish(devices[0], devices[1])
			for err == nil { // the first ones may still be taken
				err = tx.Send(ctx, 0)
			}
			require.ErrorIs(t, err, novastream.ErrTransport)
			f, err := rx.Recv(ctx)
			require.NoError(t, err)
			require.Equal(t, novastream.KindAttached, f.Kind)
			for f.Kind != novastream.KindTransportError {
				f, err = rx.Recv(ctx)
				require.NoError(t, err)
			}
			require.ErrorIs(t, f.Err, novastream.ErrTransport)
			_, err = rx.Recv(ctx)
			require.ErrorIs(t, err, io.EOF)
			require.NoError(t, rx.Close())
			tx.Close()
			require.Eventually(t, func() bool {
				a, b := nodes[0].Stats(), nodes[1].Stats()
				return a.Memory == 0 && a.Inbound == 0 && b.Outlets == 0
			}, 20*time.Second, time.Millisecond)
		})
	}
}

// A cut of 150 ms, with the default settings, is no error and loses nothing.
func TestRDMAShortCut(t *testing.T) {
	ctx := t.Context()
	dir, done := tempDir()
	defer done()
	rdma.Register(otherProvider{soft.New()})
	var nodes [2]*novastream.Streaming
	for i := range nodes {
		n, err := control.Listen(ctx, control.WithDir(dir), control.WithoutUnix(), control.WithTCP("127.0.0.1:0"))
		require.NoError(t, err)
		nodes[i], err = novastream.New(n, novastream.RDMA("other", ""))
		require.NoError(t, err)
		t.Cleanup(func() { nodes[i].Close(); n.Close() })
	}
	rx, err := novastream.Create[uint64](nodes[0], novastream.Capacity(64))
	require.NoError(t, err)
	tx, err := novastream.Attach[uint64](ctx, nodes[1], rx.Handle(), novastream.Lanes(novastream.LaneRDMA))
	require.NoError(t, err)
	const total = 2000
	failed := make(chan error, 1)
	go func() {
		failed <- func() error {
			for i := range uint64(total) {
				if i == total/2 {
					lastOther.Cut(150 * time.Millisecond)
				}
				if err := tx.Send(ctx, i); err != nil {
					return err
				}
			}
			return tx.Finalize(ctx)
		}()
	}()
	next := uint64(0)
	for v, err := range rx.Values(ctx) {
		require.NoError(t, err)
		require.Equal(t, next, v)
		next++
	}
	require.Equal(t, uint64(total), next)
	require.NoError(t, <-failed)
}

type otherProvider struct{ *soft.Provider }

var lastOther *soft.Device

func (otherProvider) Name() string { return "other" }

func (p otherProvider) Open(name string) (rdma.Device, error) {
	d, err := p.Provider.Open(name)
	if err == nil {
		lastOther = d.(*soft.Device)
	}
	return d, err
}
