package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/credentials"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// session connects the user's stdio with a container's or an exec's.
type session struct {
	app *app
	// stdin, stdout and stderr say what is connected.
	stdin, stdout, stderr bool
	// tty tells that the other side is a terminal: one raw stream.
	tty bool
	// keys detach when typed.
	keys []byte

	done chan error
}

// detachFlag adds --detach-keys.
func detachFlag(fs *pflag.FlagSet, keys *string) {
	fs.StringVar(keys, "detach-keys", "", "Override the key sequence for detaching a container")
}

// detachKeys are the keys of a flag's value. Without one it becomes that of
// Docker's configuration file (detachKeys), if there is one.
func detachKeys(flag *string) ([]byte, error) {
	if *flag == "" {
		file, err := credentials.Open()
		if err == nil {
			*flag, err = file.DetachKeys()
		}
		if err != nil {
			return nil, err
		}
	}
	if *flag == "" {
		return terminal.ParseKeys(terminal.DefaultKeys)
	}
	return terminal.ParseKeys(*flag)
}

var errNotTTY = &hinted{error: errors.New("the input device is not a TTY"), hint: "leave out -t when input comes from a file or a pipe"}

// checkTTY refuses a terminal for the container when the user has none to type at.
func (a *app) checkTTY(stdin, tty bool) error {
	if stdin && tty && !terminal.Is(a.in) {
		return errNotTTY
	}
	return nil
}

// begin puts the user's terminal into raw mode where the other side is one,
// and starts copying. end waits.
func (s *session) begin(stream *client.Stream) error {
	if s.stdin && s.tty && terminal.Is(s.app.in) {
		raw, err := terminal.MakeRaw(s.app.in)
		if err != nil {
			return err
		}
		s.app.raw = raw
	}
	s.done = make(chan error, 2)
	if s.stdin {
		go s.input(stream)
	}
	go func() {
		err := s.output(stream)
		if errors.Is(err, net.ErrClosed) {
			err = nil
		}
		s.done <- err
	}()
	return nil
}

// end waits until the other side's output has ended or the user has detached
// (terminal.ErrDetached) and puts the terminal back.
func (s *session) end() error {
	err := <-s.done
	s.app.restore()
	return err
}

// input copies what the user types. It reports only a detach: when the other
// side has ended, its output says so. Reading cannot be interrupted, so this
// goroutine may last until the command ends.
func (s *session) input(stream *client.Stream) {
	var in io.Reader = s.app.in
	if s.tty && len(s.keys) > 0 {
		in = terminal.NewKeyReader(in, s.keys)
	}
	_, err := io.Copy(struct{ io.Writer }{stream}, struct{ io.Reader }{in})
	if errors.Is(err, terminal.ErrDetached) {
		s.done <- err
		return
	}
	stream.CloseWrite()
}

func (s *session) output(stream *client.Stream) error {
	var out, errOut io.Writer = io.Discard, io.Discard
	if s.stdout {
		out = s.app.out
	}
	if s.stderr {
		errOut = s.app.err
	}
	if s.tty {
		if !s.stdout {
			out = errOut
		}
		_, err := io.Copy(struct{ io.Writer }{out}, struct{ io.Reader }{stream})
		return err
	}
	_, err := stdcopy.StdCopy(out, errOut, stream)
	return err
}

// resizer sets the size of the other side's terminal.
type resizer func(ctx context.Context, height, width uint) error

// followSize keeps a terminal as large as the user's until stop is called.
func (a *app) followSize(ctx context.Context, resize resizer) (stop func()) {
	if !terminal.Is(a.out) {
		return func() {}
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var h, w uint
		for {
			if nh, nw := terminal.Size(a.out); nh > 0 && nw > 0 && (nh != h || nw != w) {
				// A refusal means that the process has not come so far or has
				// ended; neither is the user's concern.
				if resize(ctx, nh, nw) == nil {
					h, w = nh, nw
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// forwarded are the signals that are a container's business when the command
// gets them: those people and service managers send, job control, and the real
// time ones that tell systemd as an init to halt, power off, reboot or kexec.
// SIGWINCH is followSize's; SIGCHLD, SIGPIPE and SIGURG are about this process.
func forwarded() []os.Signal {
	const realTime = 34 // SIGRTMIN as libraries count
	return []os.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
		unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGPWR,
		syscall.Signal(realTime + 3), syscall.Signal(realTime + 4), syscall.Signal(realTime + 5), syscall.Signal(realTime + 6),
	}
}

// catchSignals begins to catch the signals that are forwarded. It takes the
// runtime a handshake per signal, so that one does something else meanwhile:
// the signals are caught when the channel yields the channel they come on.
// They are caught until the command ends.
func catchSignals() <-chan chan os.Signal {
	caught := make(chan chan os.Signal, 1)
	go func() {
		got := make(chan os.Signal, 64)
		signal.Notify(got, forwarded()...)
		caught <- got
	}()
	return caught
}

// forwardSignals sends the signals the command gets to a container until stop
// is called.
func (a *app) forwardSignals(ctx context.Context, c *client.Client, id string, got <-chan os.Signal) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case s := <-got:
				_ = c.ContainerKill(ctx, id, signalName(s)) // it may just have ended
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// signalName is a signal's name, or its number where it has none.
func signalName(s os.Signal) string {
	sig, _ := s.(syscall.Signal)
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return strconv.Itoa(int(sig))
}

// restoreOnSignal puts the terminal back when a signal ends the command; for
// those who do not forward signals.
func (a *app) restoreOnSignal() (stop func()) {
	got := make(chan os.Signal, 1)
	signal.Notify(got, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-got:
			a.restore()
			signal.Reset(s)
			_ = unix.Kill(unix.Getpid(), s.(syscall.Signal))
		case <-quit:
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// detached is what the command says and how it ends after the detach keys.
func (a *app) detached() error {
	_, err := fmt.Fprintln(a.err, "read escape sequence")
	return err
}
