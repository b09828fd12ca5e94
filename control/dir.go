package control

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// DefaultDir is the directory that Listen uses without WithDir.
func DefaultDir() string {
	if d := os.Getenv("NOVA_RUNTIME_DIR"); d != "" {
		return d
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "nova")
	}
	return filepath.Join(os.TempDir(), "nova-"+strconv.Itoa(os.Getuid()))
}

// secureDir makes the directory, or checks the one that is there.
func secureDir(dir string, uids []int) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return fmt.Errorf("control: make the runtime directory: %w", err)
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("control: runtime directory: %w", err)
	}
	switch {
	case st.Mode()&os.ModeSymlink != 0:
		return fmt.Errorf("%w: %s is a symbolic link: name what it points to", ErrInsecureDir, dir)
	case !st.IsDir():
		return fmt.Errorf("%w: %s is not a directory", ErrInsecureDir, dir)
	case owner(st) >= 0 && owner(st) != os.Geteuid() && owner(st) != 0 && !contains(uids, owner(st)):
		return fmt.Errorf("%w: %s belongs to user %d, this is user %d: choose another with WithDir", ErrInsecureDir, dir, owner(st), os.Geteuid())
	case st.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%w: others may write to %s (mode %04o): chmod 700 it", ErrInsecureDir, dir, st.Mode().Perm())
	}
	return nil
}

func contains(list []int, v int) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

// checkSocketPath tells whether a socket can have this path.
func checkSocketPath(path string) error {
	limit := 107
	if runtime.GOOS != "linux" {
		limit = 103
	}
	if len(path) > limit {
		return fmt.Errorf("%w: %s has %d bytes, a socket's path at most %d: choose a shorter directory with WithDir", ErrSocketPath, path, len(path), limit)
	}
	return nil
}
