package rdma

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

var registry = struct {
	sync.Mutex
	providers map[string]Provider
}{providers: map[string]Provider{}}

// Register makes a provider known by its name, in place of one that had the name
// before. Providers call it from init: importing one is enough to find it.
func Register(p Provider) {
	registry.Lock()
	defer registry.Unlock()
	registry.providers[p.Name()] = p
}

// Providers lists the names that Lookup knows, in order.
func Providers() []string {
	registry.Lock()
	defer registry.Unlock()
	return slices.Sorted(maps.Keys(registry.providers))
}

// Lookup finds a provider by name. ErrUnknownProvider lists those that there are.
func Lookup(name string) (Provider, error) {
	registry.Lock()
	p := registry.providers[name]
	registry.Unlock()
	if p != nil {
		return p, nil
	}
	known := strings.Join(Providers(), ", ")
	if known == "" {
		known = "none: import one, such as rdma/soft"
	}
	hint := ""
	if name == "verbs" {
		hint = "; verbs needs a build with cgo, libibverbs and -tags verbs"
	}
	return nil, fmt.Errorf("%w: %q; there are: %s%s", ErrUnknownProvider, name, known, hint)
}
