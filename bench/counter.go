package bench

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"unsafe"

	"github.com/novastream/novastream/shm"
)

// counter is a word in a file of the directory that both processes map: by it a
// receiver knows how far behind it is. The mapping lives as long as the process.
func counter(dir string) (*atomic.Uint64, error) {
	path := filepath.Join(dir, "sent")
	seg, err := shm.CreateFile(path, os.Getpagesize())
	if errors.Is(err, fs.ErrExist) {
		seg, err = shm.OpenFile(path, os.Getpagesize())
	}
	if err != nil {
		return nil, err
	}
	// A page is aligned for any word.
	return (*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(seg.Bytes()))), nil
}
