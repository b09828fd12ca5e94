//go:build !linux

package shm

import "github.com/novastream/novastream/shm"

func descriptors(shm.Segment, ...shm.Bell) ([]int, error) { return nil, shm.ErrUnsupported }
