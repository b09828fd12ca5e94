package rdma_test

import (
	"errors"
	"fmt"

	"github.com/novastream/novastream/rdma"
	_ "github.com/novastream/novastream/rdma/soft"
)

func ExampleLookup() {
	p, err := rdma.Lookup("soft")
	fmt.Println(p.Name(), err)
	_, err = rdma.Lookup("nic")
	fmt.Println(errors.Is(err, rdma.ErrUnknownProvider))
	// Output:
	// soft <nil>
	// true
}
