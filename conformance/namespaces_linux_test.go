package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

func init() { programs["foreigner"] = foreigner }

// foreigner is a program: HANDLE DIR ENTRY. A process of another user, which lets in
// whoever it meets, with a directory of its own and the entry of the receiver's node,
// sends five values, says what came of it and waits.
func foreigner(p *program) error {
	const unmapped = 65534 // how a user namespace sees those outside
	s, h, err := p.visit(0, unmapped)
	if err != nil {
		return err
	}
	tx, err := novastream.Attach[Rec](p.ctx, s, h)
	if err != nil {
		fmt.Println(verdict(err))
		return nil
	}
	for i := range uint64(5) {
		if err := tx.Send(p.ctx, MakeRec(i)); err != nil {
			return err
		}
	}
	fmt.Println("sent")
	p.wait()
	return tx.Close()
}

// isolate starts a command in namespaces of its own, as the given user outside.
func isolate(flags uintptr, uid int) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if flags&syscall.CLONE_NEWUSER != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
			cmd.SysProcAttr.Credential = &syscall.Credential{NoSetGroups: true} // root inside
		} else if uid != os.Geteuid() {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
		}
	}
}

// needNamespaces skips a test where a process cannot be put into some.
func needNamespaces(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start a child as another user and in namespaces of its own")
	}
	cmd := exec.Command("/bin/true")
	isolate(syscall.CLONE_NEWUSER|syscall.CLONE_NEWPID|syscall.CLONE_NEWNS, 0)(cmd)
	if err := cmd.Run(); err != nil {
		t.Skipf("no namespaces can be made here: %v", err)
	}
}

var namespaces = []struct {
	name  string
	flags uintptr
}{
	{"pid", syscall.CLONE_NEWPID},
	{"pid and mount", syscall.CLONE_NEWPID | syscall.CLONE_NEWNS},
	{"pid, mount and user", syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER},
}

// TestNamespaces_SameUser: a container of the same user works, in either role, and the
// death of either side is noticed: also by who cannot see the other's process.
func TestNamespaces_SameUser(t *testing.T) {
	needNamespaces(t)
	for _, l := range Lanes() {
		if l.Lane != novastream.LaneShm {
			continue
		}
		for _, ns := range namespaces {
			t.Run(l.Name+"/"+ns.name, func(t *testing.T) {
				e := newEnv(t, l)
				inside := isolate(ns.flags, 0)
				// The sender is in the container.
				rx := e.Create(novastream.Capacity(16))
				c := e.child(inside, "fill", rx.Handle().String())
				n := c.Number()
				require.Equal(e, uint64(16), n)
				c.Kill()
				e.Expect(rx, novastream.KindAttached)
				e.ExpectData(rx, 0, n)
				e.Expect(rx, novastream.KindDropped)
				// The receiver is in it, and sees no process at the other end.
				c = e.child(inside, "start", uuid.NewString(), "rec")
				h := c.Line()
				tx := e.Child("idle", h)
				require.Equal(e, "attached", tx.Line())
				tx.Kill()
				require.Equal(e, "Dropped", c.Line())
				// It dies with a sender outside.
				c = e.child(inside, "receive", "16")
				h2, err := novastream.ParseHandle(c.Line())
				require.NoError(e, err)
				out := e.Attach(h2)
				e.Fill(out)
				c.Kill()
				<-out.Done()
				require.ErrorIs(e, out.Err(), novastream.ErrPeerDead)
				// A claim that a dead one of the container had open is in nobody's way.
				if e.Lane.OneRing {
					rx := e.Create(novastream.Capacity(16))
					c := e.child(inside, "claim", rx.Handle().String())
					require.Equal(e, "held", c.Line())
					other := e.Attach(rx.Handle())
					e.Send(other, 0, 3)
					c.Kill()
					got := map[novastream.SenderID]int{}
					for dropped := false; !dropped || got[other.ID()] < 3; {
						f := e.Next(rx)
						if f.Kind == novastream.KindData {
							got[f.Sender]++
						}
						dropped = dropped || f.Kind == novastream.KindDropped
					}
				}
			})
		}
	}
}

// TestNamespaces_AnotherUser: another user is refused, from whatever namespace, by
// who it is outside; allowed by both sides it works, and its death is noticed.
func TestNamespaces_AnotherUser(t *testing.T) {
	needNamespaces(t)
	const nobody = 65534
	for _, ns := range append(namespaces, struct {
		name  string
		flags uintptr
	}{"none", 0}) {
		for _, allowed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/allowed %v", ns.name, allowed), func(t *testing.T) {
				overShm(t, func(e *Env) {
					opts := []control.Option{control.WithDir(e.Dir)}
					if allowed {
						opts = append(opts, control.AllowUID(nobody))
					}
					n, err := control.Listen(e.Ctx, opts...)
					require.NoError(e, err)
					s, err := novastream.New(n)
					require.NoError(e, err)
					defer func() { require.NoError(e, errors.Join(s.Close(), n.Close())) }()
					// No mode keeps it out: the kernel's word on who it is must do.
					require.NoError(e, os.Chmod(e.Dir, 0o755))
					require.NoError(e, os.Chmod(n.SocketPath(), 0o666))
					own := filepath.Join(e.Dir, "own")
					require.NoError(e, os.Mkdir(own, 0o700))
					require.NoError(e, os.Chown(own, nobody, nobody))
					bin := filepath.Join(e.Dir, "test")
					self, err := os.ReadFile(os.Args[0])
					require.NoError(e, err)
					require.NoError(e, os.WriteFile(bin, self, 0o755))
					entry, err := json.Marshal(n.Entry())
					require.NoError(e, err)
					rx := CreateOn(e, s, novastream.AttachTimeout(0))
					before := s.Stats()
					c := e.child(func(cmd *exec.Cmd) {
						cmd.Path, cmd.Dir = bin, "/"
						isolate(ns.flags, nobody)(cmd)
					}, "foreigner", rx.Handle().String(), own, string(entry))
					line := c.Line()
					if !allowed {
						require.Contains(e, line, "refused")
						require.Contains(e, line, "AllowUID")
						require.Equal(e, before, s.Stats())
						_, err := rx.TryRecv()
						require.ErrorIs(e, err, novastream.ErrEmpty)
						return
					}
					require.Equal(e, "sent", line)
					peers := n.Peers()
					require.Len(e, peers, 1)
					require.Equal(e, nobody, peers[0].UID())
					c.Kill()
					e.Expect(rx, novastream.KindAttached)
					e.ExpectData(rx, 0, 5)
					e.Expect(rx, novastream.KindDropped)
				})
			})
		}
	}
}
