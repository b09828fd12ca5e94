//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/control"
)

const childEnv = "NOVA_TOKENS_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// service is a worker process and a front-end process.
type service struct {
	*testing.T
	dir, url string
	worker   *exec.Cmd
	id       string
	node     *control.Node
}

func start(t *testing.T) *service {
	dir, err := os.MkdirTemp("", "nt")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &service{T: t, dir: dir}
	s.worker, s.id = s.process("worker")
	_, addr := s.process("frontend", s.id)
	s.url = "http://" + addr
	s.node, err = control.Listen(context.Background(), control.WithDir(dir))
	require.NoError(t, err)
	t.Cleanup(func() { s.node.Close() })
	return s
}

func (s *service) process(args ...string) (*exec.Cmd, string) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv+"=1", "NOVA_RUNTIME_DIR="+s.dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(s, err)
	require.NoError(s, cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line := bufio.NewScanner(out)
	require.True(s, line.Scan())
	return cmd, line.Text()
}

// stats asks the worker.
func (s *service) stats() (st stats) {
	e, err := control.Directory(s.dir).List(context.Background())
	require.NoError(s, err)
	for _, x := range e {
		if x.Worker.String() == s.id {
			m, err := s.node.Call(context.Background(), x.Worker, "stats", control.Message{})
			require.NoError(s, err)
			require.NoError(s, json.Unmarshal(m.Payload, &st))
		}
	}
	return st
}

// streams asks the front end how many streams it has.
func (s *service) streams() (n int) {
	resp, err := http.Get(s.url + "/streams")
	require.NoError(s, err)
	defer resp.Body.Close()
	var st struct{ Anchors, Inbound int }
	require.NoError(s, json.NewDecoder(resp.Body).Decode(&st))
	return st.Anchors + st.Inbound
}

func (s *service) get(ctx context.Context, prompt string) *http.Response {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/generate?prompt="+strings.ReplaceAll(prompt, " ", "+"), nil)
	require.NoError(s, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(s, err)
	require.Equal(s, http.StatusOK, resp.StatusCode)
	return resp
}

const prompt = "so we beat on boats against the current"

func TestWholeAnswer(t *testing.T) {
	s := start(t)
	resp := s.get(context.Background(), prompt)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var want strings.Builder
	for range 20 {
		for _, w := range strings.Fields(prompt) {
			want.WriteString("data: " + w + "\n\n")
		}
	}
	require.Equal(t, want.String()+"event: end\ndata: \n\n", string(b))
	resp, err = http.Get(s.url + "/generate")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
}

// Clients that hang up half way stop the work at the far end; the others are
// served to the end; nothing is left.
func TestClientsThatHangUp(t *testing.T) {
	s := start(t)
	const clients = 60
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			resp := s.get(ctx, prompt)
			defer resp.Body.Close()
			in := bufio.NewScanner(resp.Body)
			for n := 0; in.Scan(); n++ {
				if i%2 == 0 && n > i {
					return // hang up
				}
			}
			if i%2 == 1 && in.Err() != nil {
				t.Error(in.Err())
			}
		})
	}
	wg.Wait()
	require.Eventually(t, func() bool { return s.stats().Running == 0 && s.streams() == 0 }, 20*time.Second, 5*time.Millisecond)
	require.Positive(t, s.stats().Stopped)
}

// A worker that is killed in mid-answer is an error event for its clients.
func TestWorkerKilled(t *testing.T) {
	s := start(t)
	resp := s.get(context.Background(), prompt)
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	for range 20 {
		require.True(t, in.Scan())
	}
	require.NoError(t, s.worker.Process.Kill())
	seen := ""
	for in.Scan() {
		seen += in.Text() + "\n"
	}
	require.Contains(t, seen, "event: error")
	require.NotContains(t, seen, "event: end")
	require.Eventually(t, func() bool { return s.streams() == 0 }, 20*time.Second, 5*time.Millisecond)
}
