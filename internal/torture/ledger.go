package torture

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/edsrzf/mmap-go"
)

// Ledger is the books of all processes: a file that each of them has mapped, so that
// what a process has written is there after its death, whatever it died of.
//
// It is cut into regions, one an episode that is under way. A region has records for
// senders, for sessions as the receiver has them, and for streams. Each record has
// one writer at a time, the goroutine that it is about; the torturer clears a region
// when nobody writes to it, and reads it at any time.
type Ledger struct {
	f   *os.File
	mem mmap.MMap
}

const (
	words       = 24  // of a record
	recordBytes = 512 // words, then text
	textAt      = words * 8

	maxSenders  = 64
	maxSessions = 128
	maxStreams  = 4
	regionBytes = (maxSenders + maxSessions + maxStreams) * recordBytes
)

// CreateLedger makes one of so many regions.
func CreateLedger(path string, regions int) (*Ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(int64(regions * regionBytes)); err != nil {
		f.Close()
		return nil, err
	}
	return mapLedger(f)
}

// OpenLedger opens the torturer's.
func OpenLedger(path string) (*Ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return mapLedger(f)
}

func mapLedger(f *os.File) (*Ledger, error) {
	mem, err := mmap.Map(f, mmap.RDWR, 0)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("map the ledger: %w", err)
	}
	return &Ledger{f, mem}, nil
}

// Close unmaps it; no record may be used any more.
func (l *Ledger) Close() error {
	if err := l.mem.Unmap(); err != nil {
		return err
	}
	return l.f.Close()
}

// region is one episode's part.
type region struct{ mem []byte }

func (l *Ledger) region(i int) region {
	return region{l.mem[i*regionBytes : (i+1)*regionBytes]}
}

func (r region) clear() { clear(r.mem) }

func (r region) sender(i int) record  { return r.at(i) }
func (r region) session(i int) record { return r.at(maxSenders + i) }
func (r region) stream(i int) record  { return r.at(maxSenders + maxSessions + i) }

func (r region) at(i int) record { return record{r.mem[i*recordBytes : (i+1)*recordBytes]} }

// record is one of them.
type record struct{ mem []byte }

// word is a word of a record. A mapping begins on a page and a record's size is a
// multiple of 8, so every word is aligned.
func (r record) word(i int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&r.mem[i*8])) }

func (r record) get(i int) uint64    { return r.word(i).Load() }
func (r record) set(i int, v uint64) { r.word(i).Store(v) }
func (r record) add(i int, v uint64) { r.word(i).Add(v) } // one writer at a time

// note leaves a text for whoever reads about a failure.
func (r record) note(text string) {
	b := r.mem[textAt:]
	clear(b[copy(b[:len(b)-1], text):])
}

func (r record) text() string {
	b := r.mem[textAt:]
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
