//go:build !linux

package rdmaguest

import "time"

func sleep(d time.Duration) { time.Sleep(d) }
