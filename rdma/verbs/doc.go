// Package verbs is the provider "verbs" of package rdma: real devices, and
// soft-RoCE, through libibverbs. It needs Linux, cgo, libibverbs-dev,
// librdmacm-dev and the build tag verbs; without them it compiles to a provider
// that is not registered and says what is missing.
//
// # Devices
//
// A device is named as ibv_devices names it, with the number of the port and the
// index of the GID where the choice is not to be made here: "mlx5_0", "mlx5_0/2",
// "mlx5_0/1/3". By itself the first port is taken, and of its GIDs the RoCE v2 one
// of an IPv4 address, or else of a global IPv6 address, or else the first.
//
// # Threads, memory, forks
//
// One call crosses to C for each PostSend, PostRecv and Poll. Waiting, for
// completions and for asynchronous events, is Go's netpoller reading the
// descriptors of libibverbs. The memory of regions is mapped, outside Go's heap.
// ibv_fork_init is called before all else, so that children may be started.
//
// # Connecting
//
// By exchange of addresses, or by rdma_cm: devices implement rdma.CM.
package verbs
