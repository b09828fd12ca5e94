package conformance

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"unsafe"
)

// scribble finds the mappings of the ring that this process may write, and
// writes random words into them until it is killed.
func scribble(p *program) error {
	tx, err := p.attach()
	if err != nil {
		return err
	}
	for i := range uint64(8) {
		v := MakeRec(i)
		if err := tx.TrySend(&v); err != nil {
			return err
		}
	}
	maps, err := writable()
	if err != nil {
		return err
	}
	fmt.Println(len(maps))
	p.wait()
	for n := 0; ; n++ {
		m := maps[rand.IntN(len(maps))]
		m[rand.IntN(len(m))] = rand.Uint64() >> rand.IntN(64)
		if n == 100_000 {
			fmt.Println("scribbled")
		}
	}
}

// writable lists this process's writable mappings of ring segments.
func writable() (out [][]uint64, err error) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if !strings.Contains(s.Text(), "memfd:nova-ring") || !strings.Contains(s.Text(), " rw") {
			continue
		}
		var lo, hi uintptr
		if _, err := fmt.Sscanf(s.Text(), "%x-%x", &lo, &hi); err != nil {
			return nil, err
		}
		// The mapping lives as long as the sender, which the caller keeps.
		base := *(*unsafe.Pointer)(unsafe.Pointer(&lo))
		out = append(out, unsafe.Slice((*uint64)(base), (hi-lo)/8))
	}
	return out, s.Err()
}
