// Command nova moves bytes between terminals over Nova streams, shows what the
// library does on this machine, and what the machine offers it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// cli is the command line; each command is a field with its own Run.
type cli struct {
	JSON bool   `help:"Print JSON instead of text." name:"json"`
	Dir  string `help:"Runtime directory, where the nodes of one machine find each other." placeholder:"DIR" env:"NOVA_RUNTIME_DIR"`

	Demo       demoCmd       `cmd:"" help:"Stream a folder's files between processes over each lane, and show what was measured."`
	Recv       recvCmd       `cmd:"" help:"Receive bytes: prints a handle, and what is sent to it."`
	Send       sendCmd       `cmd:"" help:"Send a file, or the standard input, to a handle."`
	Torture    tortureCmd    `cmd:"" help:"Kill, stop and disconnect processes that stream over each lane, and check what arrives and what is left."`
	Doctor     doctorCmd     `cmd:"" help:"Tell what this machine offers, and what to do about each lack."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`

	Receiver receiverCmd `cmd:"" hidden:"" help:"The demo's receiver process."`
	Sender   senderCmd   `cmd:"" hidden:"" help:"One of the demo's sender processes."`
	Victim   victimCmd   `cmd:"" hidden:"" help:"One of the torture's processes."`
}

// Exit statuses.
const (
	exitFailed = 1
	exitUsage  = 2
)

// errReported is an error that was told already.
var errReported = errors.New("reported already")

func main() {
	var c cli
	k := kong.Must(&c, kong.Name("nova"), kong.Description("Streams of frames between goroutines, processes and hosts, without a copy that is not needed."),
		kong.ShortUsageOnError(), kong.Exit(func(code int) {
			if code != 0 {
				code = exitUsage
			}
			os.Exit(code)
		}))
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"--help"}
	}
	ctx, err := k.Parse(args)
	k.FatalIfErrorf(err)
	// A reader that goes away is an error of the write, which cleans up.
	signal.Ignore(syscall.SIGPIPE)
	sig, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(sig, stop) // the second one kills
	ctx.BindTo(sig, (*context.Context)(nil))
	ctx.Bind(k)
	if err := ctx.Run(&c); err != nil {
		complain(err, c.JSON)
		os.Exit(exitFailed)
	}
}

func complain(err error, asJSON bool) {
	switch {
	case errors.Is(err, errReported):
	case asJSON:
		_ = json.NewEncoder(os.Stderr).Encode(map[string]string{"error": err.Error()})
	default:
		fmt.Fprintln(os.Stderr, "nova:", err)
	}
}
