package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// frontend serves HTTP until the context ends.
func frontend(ctx context.Context, s *novastream.Streaming, workerID string) error {
	id, err := strconv.ParseUint(workerID, 16, 64)
	if err != nil {
		return fmt.Errorf("worker id %q: %w", workerID, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /generate", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, s, control.WorkerID(id))
	})
	mux.HandleFunc("GET /streams", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(s.Stats())
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		srv.Close()
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serve answers one request. The request's context ends when the client goes
// away; the stream is cancelled then, which the worker notices at once.
func serve(w http.ResponseWriter, r *http.Request, s *novastream.Streaming, worker control.WorkerID) {
	prompt := r.URL.Query().Get("prompt")
	if prompt == "" {
		http.Error(w, "a prompt is missing: /generate?prompt=…", http.StatusBadRequest)
		return
	}
	rx, err := novastream.CreateBytes(s, novastream.Capacity(256))
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer rx.Close()
	if err := ask(r.Context(), s, worker, request{prompt, rx.Handle()}); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w).Flush
	var buf []byte
	for {
		f, err := rx.Recv(r.Context(), buf)
		switch {
		case err != nil:
			_ = rx.Cancel("the client went away")
			return
		case f.Kind == novastream.KindData:
			buf = f.Value
			_, err = fmt.Fprintf(w, "data: %s\n\n", f.Value)
		case f.Kind == novastream.KindFinalized:
			_, _ = fmt.Fprint(w, "event: end\ndata: \n\n")
			return
		case f.Err != nil:
			_, _ = fmt.Fprintf(w, "event: error\ndata: %v\n\n", f.Err)
			return
		}
		if err == nil {
			err = flush()
		}
		if err != nil {
			_ = rx.Cancel("the client went away")
			return
		}
	}
}

func ask(ctx context.Context, s *novastream.Streaming, worker control.WorkerID, req request) error {
	b, err := json.Marshal(req)
	if err != nil {
		return err
	}
	_, err = s.Node().Call(ctx, worker, "generate", control.Message{Payload: b})
	return err
}
