package ring_test

import (
	"fmt"
	"log"

	"github.com/novastream/novastream/ring"
)

// memory for a ring: any that both sides can address, aligned to a page.
func memory(g ring.Geometry) []byte { return make([]byte, g.SegmentSize()) }

// Values lie in the slots as they are. Each value is published as the body of the
// loop ends, and given back as the body of the reading loop ends.
func Example() {
	g := ring.Geometry{SlotSize: ring.FixedSlotSize(8, 1), Slots: 64, Payload: 8}
	r, err := ring.Format(memory(g), g)
	if err != nil {
		log.Fatal(err)
	}
	s := ring.Session{Tag: 1}
	c := r.Consumer(s, nil) // before the producer of the same session
	p := r.Producer(s, nil)

	n := uint64(0)
	for v := range ring.Slots[uint64](p, 3) {
		n++
		*v = n * n
	}
	p.End(ring.Finalized)

	for v := range ring.Each[uint64](c, 64) {
		fmt.Println(*v)
	}
	f, ok := c.Next()
	fmt.Println(f.Kind == ring.Finalized, ok)
	// Output:
	// 1
	// 4
	// 9
	// true true
}

// Frames that vary in length are contiguous, whatever their length.
func ExampleProducer_Reserve() {
	g := ring.Geometry{SlotSize: 32, Slots: 64}
	r, err := ring.Format(memory(g), g)
	if err != nil {
		log.Fatal(err)
	}
	c, p := r.Consumer(ring.Session{}, nil), r.Producer(ring.Session{}, nil)
	b, err := p.Reserve(500)
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Commit(copy(b, "shorter than what was reserved"), ring.Data); err != nil {
		log.Fatal(err)
	}
	f, _ := c.Next()
	fmt.Printf("%s\n", f.Data)
	c.Release()
	// Output: shorter than what was reserved
}

// Several producers claim slots of one ring, and the collector tells them apart.
func ExampleRing_Collector() {
	g := ring.Geometry{SlotSize: 64, Slots: 64, Producers: 2}
	r, err := ring.Format(memory(g), g)
	if err != nil {
		log.Fatal(err)
	}
	col := r.Collector(ring.Session{}, nil)
	for record := 1; record <= 2; record++ {
		col.Admit(record, 1)
		c, err := r.Claimer(ring.Session{}, record, 1, nil)
		if err != nil {
			log.Fatal(err)
		}
		b, err := c.Reserve(16)
		if err != nil {
			log.Fatal(err)
		}
		_ = c.Commit(copy(b, fmt.Sprint("of producer ", record)), ring.Data)
		c.End(ring.Detached)
	}
	for range 4 {
		f, _ := col.Next()
		fmt.Printf("%d %v %q\n", f.Record, f.Kind.Terminal(), f.Data)
		col.Release()
	}
	// Output:
	// 1 false "of producer 1"
	// 2 false "of producer 2"
	// 1 true ""
	// 2 true ""
}
