//go:build !linux

package bench

func pin(int) (unpin func()) { return func() {} }

func pinProcess(int, int) {}
