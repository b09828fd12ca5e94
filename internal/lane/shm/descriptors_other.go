//go:build !linux

package shm

import "github.com/novastream/novastream/shm"

func dup(...int) ([]int, error) { return nil, shm.ErrUnsupported }
