// Package crashtest has the tests of docs/crash.md: one for each state that a
// process can leave which is killed between two steps of a protocol. It holds no
// code that is used elsewhere.
//
// Each test starts a real process, which stops at a point of internal/failpoint and
// is killed there with SIGKILL. So they are built with the tag failpoint: make
// test-crash.
package crashtest
