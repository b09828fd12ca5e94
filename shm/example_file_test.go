//go:build unix

package shm_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/novastream/novastream/shm"
)

// A segment in a file, for two containers that share a mount and no socket. The file
// is its makers' to remove.
func ExampleCreateFile() {
	dir, err := os.MkdirTemp("", "nova")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path, size := filepath.Join(dir, "ring"), os.Getpagesize()
	a, err := shm.CreateFile(path, size)
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	b, err := shm.OpenFile(path, size) // in another process as well
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	copy(a.Bytes(), "one memory")
	fmt.Printf("%s\n", b.Bytes()[:10])
	// Output: one memory
}
