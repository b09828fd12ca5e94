//go:build unix

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Directory finds the nodes of one machine by files in a directory, one a node.
// A node holds a lock on its file for as long as it lives, so a file whose lock
// can be taken is stale: it is removed, with the socket that it names.
func Directory(dir string) Discovery { return directory(dir) }

type directory string

const (
	entrySuffix = ".node"
	newSuffix   = ".new"
)

func (d directory) path(id WorkerID) string {
	return filepath.Join(string(d), id.String()+entrySuffix)
}

// Publish writes the file under another name, locked, and then renames it, so
// that nobody takes it for stale once it has its name. Under the other name it can
// be taken for stale, in the moment between its making and its lock: it is made
// again then.
func (d directory) Publish(_ context.Context, e Entry) (io.Closer, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	path := d.path(e.Worker)
	for try := 1; ; try++ {
		f, err := publish(path, append(b, '\n'))
		if err == nil {
			return &published{f: f, path: path}, nil
		}
		if try == publishTries || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("control: publish node in %s: %w", path, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// publishTries is how often a file is made: others look at it for some microseconds.
const publishTries = 100

func publish(path string, b []byte) (*os.File, error) {
	f, err := os.OpenFile(path+newSuffix, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := fill(f, path, b); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// fill locks the file, writes it and gives it its name. The entry of an earlier life
// of the node is locked meanwhile, or who finds that stale might remove this one.
func fill(f *os.File, path string, b []byte) (err error) {
	if err := lock(f, path+newSuffix); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path + newSuffix)
		}
	}()
	switch old, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0); {
	case err == nil:
		defer old.Close()
		if err := lock(old, path); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	return os.Rename(path+newSuffix, path)
}

// lock locks a file and tells whether it still has its name: who held the lock before
// may have removed it. Nobody removes or replaces one that another has locked.
func lock(f *os.File, path string) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another node has the same id: %w", err)
	}
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Lstat(path); err != nil || !os.SameFile(mine, named) {
		return fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return nil
}

type published struct {
	f    *os.File
	path string
	once sync.Once
	err  error
}

func (p *published) Close() error {
	p.once.Do(func() { p.err = errors.Join(os.Remove(p.path), p.f.Close()) })
	return p.err
}

func (d directory) Lookup(_ context.Context, id WorkerID) (Entry, error) {
	e, err := d.read(d.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{}, fmt.Errorf("%w: %v: no node of this id in %s: it has ended, or it uses another directory (WithDir, $NOVA_RUNTIME_DIR) or host", ErrUnknownPeer, id, string(d))
	}
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %v: %w", ErrUnknownPeer, id, err)
	}
	if e.Worker != id {
		return Entry{}, fmt.Errorf("%w: %s speaks of worker %v", ErrUnknownPeer, d.path(id), e.Worker)
	}
	return e, nil
}

func (d directory) List(context.Context) ([]Entry, error) {
	names, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("control: list nodes: %w", err)
	}
	var out []Entry
	for _, n := range names {
		if !strings.HasSuffix(n.Name(), entrySuffix) && !strings.HasSuffix(n.Name(), entrySuffix+newSuffix) {
			continue
		}
		if e, err := d.read(filepath.Join(string(d), n.Name())); err == nil {
			out = append(out, e)
		}
	}
	return out, nil
}

var errStale = errors.New("its node is gone, the entry was stale")

// maxEntry bounds what is read of an entry.
const maxEntry = 1 << 16

// read reads an entry, and removes it if nobody holds its lock.
func (d directory) read(path string) (e Entry, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrPermission) { // another user's: to be read, not to be removed
		f, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	}
	if err != nil {
		return e, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEntry))
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	switch lerr := lock(f, path); {
	case errors.Is(lerr, fs.ErrNotExist): // removed or replaced meanwhile
		return d.read(path)
	case lerr == nil:
		os.Remove(path)
		if err == nil && filepath.Dir(e.Socket) == filepath.Clean(string(d)) {
			os.Remove(e.Socket)
		}
		return e, errStale
	}
	return e, err
}
