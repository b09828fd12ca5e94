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
// that nobody sees it half written or unlocked.
func (d directory) Publish(_ context.Context, e Entry) (io.Closer, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	path := d.path(e.Worker)
	f, err := os.OpenFile(path+newSuffix, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("control: publish node: %w", err)
	}
	fail := func(err error) (io.Closer, error) {
		return nil, errors.Join(fmt.Errorf("control: publish node in %s: %w", path, err), f.Close())
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fail(fmt.Errorf("another node has the same id: %w", err))
	}
	if err := f.Truncate(0); err != nil {
		return fail(err)
	}
	if _, err := f.Write(append(b, '\n')); err != nil {
		return fail(err)
	}
	if err := os.Rename(path+newSuffix, path); err != nil {
		return fail(err)
	}
	return &published{f: f, path: path}, nil
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
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		// Only while its lock is held: a node that starts anew under the same
		// name locks a new file.
		os.Remove(path)
		if err == nil && filepath.Dir(e.Socket) == filepath.Clean(string(d)) {
			os.Remove(e.Socket)
		}
		return e, errStale
	}
	return e, err
}
