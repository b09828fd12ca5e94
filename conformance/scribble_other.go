//go:build !linux

package conformance

import "errors"

func scribble(*program) error { return errors.New("needs /proc/self/maps") }
