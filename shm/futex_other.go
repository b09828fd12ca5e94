//go:build !linux

package shm

import "time"

const haveFutex = false

func futexWait(*uint32, uint32, time.Duration) {}
func futexWake(*uint32)                        {}
