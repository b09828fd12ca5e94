// Package ibv is the crossing to libibverbs and librdmacm: thin Go functions over
// the C of nova_verbs.c and nova_cm.c, one crossing a call, for package rdma/verbs
// and nobody else. It adds no policy: no locks, no errors but errno, and nothing is
// closed twice or in the right order unless its caller sees to it.
//
// It is empty without the build tag verbs, cgo and Linux.
package ibv
