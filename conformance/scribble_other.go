//go:build !linux

package conformance

import "errors"

func scribble(*program) error { return errors.New("needs /proc/self/maps") }

func limited(*program) error { return errors.New("needs limits that Linux has") }
