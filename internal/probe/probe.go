// Package probe uses the hot paths of the public API the way users do, for the
// test that reads their compiled code. Nothing else imports it.
package probe

import "github.com/novastream/novastream"

// R is a record that fills a slot of 64 bytes.
type R struct{ A, B, C, D, E, F, G uint64 }

func TrySend(tx *novastream.Sender[R], v *R) error { return tx.TrySend(v) }

func Reserve(tx *novastream.Sender[R], v uint64) error {
	p, err := tx.Reserve()
	if err != nil {
		return err
	}
	p.A, p.G = v, v
	return tx.Commit()
}

func Slots(tx *novastream.Sender[R], v *R) {
	for p := range tx.Slots(64) {
		*p = *v
	}
}

func TryRecv(rx *novastream.Receiver[R]) (uint64, error) {
	f, err := rx.TryRecv()
	return f.Value.A + f.Value.G, err
}

func Each(rx *novastream.Receiver[R]) (sum uint64) {
	for p := range rx.Slots(64) {
		sum += p.A + p.G
	}
	return sum
}
