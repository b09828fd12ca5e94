// Package conformance is what every stream must do, as numbered cases that take
// a lane as their parameter. The cases are documented where they are written;
// a number never changes its meaning.
//
// This package's own tests run every case over every lane of the library. To
// run them over another, make a Lane, call Main from TestMain, and Run with
// each Case.
//
// Where a case needs a process to die, a child of the test dies: the test binary
// starts itself again as one of the programs in child.go.
//
// Over a lane whose ends are apart the sending side is in another process, a puppet, and
// so are the children that send: by an agent of internal/rdmaguest, on this host or at
// $NOVA_TEST_FAR.
package conformance
