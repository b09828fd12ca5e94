package novastream

import "runtime"

func gc() { runtime.GC() }
