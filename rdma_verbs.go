//go:build verbs

package novastream

import _ "github.com/novastream/novastream/rdma/verbs" // registers the provider
