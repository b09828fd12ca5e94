// Package failpoint names steps of the protocols at which a test stops a real
// child process exactly there, to kill it, or to let it go on. It follows the idea
// of etcd's gofail.
//
// Points exist in builds with the tag failpoint alone. Without it On is the
// constant false and Hit is empty, so that
//
//	if failpoint.On {
//		failpoint.Hit("spsc/written")
//	}
//
// leaves nothing in the compiled code: TestFailpointsLeaveNoInstruction compares it
// with that of code which never had the points. On a hot path the point
// has this form: its branch is gone before the compiler counts what it may inline.
// Elsewhere Hit stands alone.
//
// It injects no errors and no delays: a process that is stopped at a point goes on
// as it was, or dies.
package failpoint
