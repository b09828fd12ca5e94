package conformance

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
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
	runtime.KeepAlive(tx) // or its cleanup would unmap them meanwhile
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

// writable maps the ring segments once more that this process may write: the library
// unmaps its own as soon as the session is over, under whoever scribbles there.
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
		// The caller keeps the sender, and so what is at lo; the new mapping is never
		// unmapped. An old size of 0 leaves the old one where it is.
		base, err := unix.MremapPtr(*(*unsafe.Pointer)(unsafe.Pointer(&lo)), 0, nil, hi-lo, unix.MREMAP_MAYMOVE)
		if err != nil {
			return nil, err
		}
		out = append(out, unsafe.Slice((*uint64)(base), (hi-lo)/8))
	}
	return out, s.Err()
}
