// Package rdmacheck looks at what a provider of package rdma offers on this machine,
// judges it, and tries it on this machine alone: for `nova doctor rdma`. It changes
// nothing, and reaches no other host.
package rdmacheck
