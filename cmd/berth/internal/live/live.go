// Package live is berth top: a view of all containers that fills the terminal
// and follows what they do.
//
// It is drawn with a dozen escape sequences that every terminal knows, as whole
// frames; one stream of overviews feeds it. One goroutine owns the view; others
// bring it overviews, keys and lines of a log.
package live

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// Options say what is shown and where.
type Options struct {
	In, Out *os.File
	Client  *client.Client
	// Colours may be used.
	Colours bool
	// Filter is in the names that are shown; the user may change it.
	Filter string
	// Explain explains a container in lines of at most width characters.
	Explain func(ctx context.Context, id string, width int) (string, error)
}

// seconds is the pause between two overviews.
const seconds = 2

// retry is the pause before an engine that is gone is asked again.
const retry = time.Second

// view is the state of the screen.
type view struct {
	Options
	width, height int

	now, before *client.Overview
	// problem is why there is no newer overview.
	problem error

	by        order
	backwards bool
	stopped   bool
	typing    bool // the filter
	selected  string
	top       int

	page *pager // over the table; nil without one
	// stopLog ends the stream that feeds page.
	stopLog context.CancelFunc

	overviews chan overview
	logs      chan logLine
	keys      chan []key
}

type overview struct {
	o   *client.Overview
	err error
}

// logLine is a line for a page, or its end.
type logLine struct {
	page *pager
	text string
	end  string
}

// Ended is the error of a view that a signal has ended.
type Ended syscall.Signal

func (e Ended) Error() string { return "ended by " + unix.SignalName(syscall.Signal(e)) }

// errQuit ends the view at the user's wish.
var errQuit = errors.New("quit")

// Run shows the view until the user leaves or a signal comes. The terminal is
// left as it was found.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := &view{
		Options: o, by: orders[0],
		overviews: make(chan overview), logs: make(chan logLine, 256), keys: make(chan []key),
	}
	// The first one before the screen is taken, so that an error is seen.
	if err := v.first(ctx); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGWINCH, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGCONT)
	defer signal.Stop(signals)
	raw, err := terminal.MakeRaw(o.In)
	if err != nil {
		return err
	}
	defer raw.Restore()
	defer io.WriteString(o.Out, leave)
	if _, err := io.WriteString(o.Out, enter); err != nil {
		return err
	}
	go v.follow(ctx)
	go v.read(ctx)
	return v.loop(ctx, signals)
}

// first asks for one overview.
func (v *view) first(ctx context.Context) error {
	err := v.Client.Watch(ctx, seconds, func(o *client.Overview) error {
		v.now = o
		return errQuit
	})
	if errors.Is(err, errQuit) {
		err = nil
	}
	v.Client.Start = nil // an engine that ends meanwhile is not ours to start
	return err
}

// follow brings overviews, also after the engine was gone for a while.
func (v *view) follow(ctx context.Context) {
	send := func(o overview) error {
		select {
		case v.overviews <- o:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	timer := time.NewTimer(retry)
	defer timer.Stop()
	for ctx.Err() == nil {
		err := v.Client.Watch(ctx, seconds, func(o *client.Overview) error { return send(overview{o: o}) })
		if err == nil {
			err = errors.New("the engine has ended")
		}
		if send(overview{err: err}) != nil {
			return
		}
		timer.Reset(retry)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// read brings keys. Reading cannot be interrupted: this lasts until the
// command ends.
func (v *view) read(ctx context.Context) {
	var buf [256]byte
	for {
		n, err := v.In.Read(buf[:])
		if err != nil {
			return
		}
		select {
		case v.keys <- decode(buf[:n]):
		case <-ctx.Done():
			return
		}
	}
}

func (v *view) loop(ctx context.Context, signals <-chan os.Signal) error {
	defer v.closePage()
	for {
		if err := v.draw(); err != nil {
			return err
		}
		select {
		case o := <-v.overviews:
			if v.problem = o.err; o.o != nil {
				v.renew(o.o)
			}
		case l := <-v.logs:
			v.take(l)
			for more := true; more; { // what has come meanwhile is drawn once
				select {
				case l := <-v.logs:
					v.take(l)
				default:
					more = false
				}
			}
		case keys := <-v.keys:
			for _, k := range keys {
				if err := v.key(ctx, k); err != nil {
					if errors.Is(err, errQuit) {
						return nil
					}
					return err
				}
			}
		case s := <-signals:
			if s != unix.SIGWINCH && s != unix.SIGCONT {
				return Ended(s.(syscall.Signal))
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// shortest is the least pause between two overviews that rates are made of.
const shortest = 400 * time.Millisecond

func (v *view) renew(o *client.Overview) {
	if o.Time.Sub(v.now.Time) >= shortest {
		v.before = v.now
	}
	v.now = o
}

func (v *view) take(l logLine) {
	if l.page != v.page {
		return // of a page that was left
	}
	if l.end != "" {
		l.page.ended = l.end
	} else {
		l.page.add(l.text)
	}
}

// key does what a key means.
func (v *view) key(ctx context.Context, k key) error {
	switch {
	case k == keyInterrupt:
		return errQuit
	case v.page != nil:
		if v.page.key(k, v.height) {
			v.closePage()
		}
		return nil
	case v.typing:
		v.typed(k)
		return nil
	}
	for _, o := range orders {
		if key(o.key) == k {
			v.backwards = o.key == v.by.key && !v.backwards
			v.by = o
			return nil
		}
	}
	list := v.list()
	at := v.index(list)
	page := max(1, v.height-4)
	switch k {
	case 'q':
		return errQuit
	case 'a':
		v.stopped = !v.stopped
	case '/':
		v.typing = true
	case keyEscape:
		v.Filter = ""
	case 'h', '?':
		v.page = &pager{title: " berth top: help", lines: strings.Split(help, "\n")}
	case keyUp, 'k':
		at--
	case keyDown, 'j':
		at++
	case keyPageUp:
		at -= page
	case keyPageDown:
		at += page
	case keyHome:
		at = 0
	case keyEnd:
		at = len(list) - 1
	case keyEnter, 'l':
		v.openLog(ctx, list, at)
	case 'e':
		v.openExplanation(ctx, list, at)
	}
	if len(list) > 0 {
		v.selected = list[max(0, min(at, len(list)-1))].ID
	}
	return nil
}

// typed edits the filter.
func (v *view) typed(k key) {
	switch {
	case k == keyEnter:
		v.typing = false
	case k == keyEscape:
		v.typing, v.Filter = false, ""
	case k == keyBackspace || k == 8:
		if r := []rune(v.Filter); len(r) > 0 {
			v.Filter = string(r[:len(r)-1])
		}
	case k >= ' ':
		v.Filter += string(rune(k))
	}
}

// list is what is shown.
func (v *view) list() []row {
	return arrange(rows(v.now, v.before), v.by, v.backwards, v.stopped, v.Filter, v.now.MemoryTotal)
}

// index is where the selected container is; one that has gone leaves the first.
func (v *view) index(list []row) int {
	for i := range list {
		if list[i].ID == v.selected {
			return i
		}
	}
	return 0
}

func (v *view) closePage() {
	if v.stopLog != nil {
		v.stopLog()
		v.stopLog = nil
	}
	v.page = nil
}

// openLog follows the log of a container.
func (v *view) openLog(ctx context.Context, list []row, at int) {
	if len(list) == 0 {
		return
	}
	r := list[at]
	page := &pager{title: " log of " + printable(r.Name), follow: true}
	ctx, v.stopLog = context.WithCancel(ctx)
	v.page = page
	go func() {
		end := "it has ended"
		if err := v.streamLog(ctx, r.ID, page); err != nil {
			end = err.Error()
		}
		select {
		case v.logs <- logLine{page: page, end: printable(end)}:
		case <-ctx.Done():
		}
	}()
}

// logTail is how much of a log is shown from before.
const logTail = "500"

func (v *view) streamLog(ctx context.Context, id string, page *pager) error {
	out, err := v.Client.ContainerLogs(ctx, id, client.LogsOptions{Follow: true, Tail: logTail})
	if err != nil {
		return err
	}
	defer out.Close()
	reader, writer := io.Pipe()
	defer reader.Close()
	go func() {
		var err error
		if out.Raw {
			_, err = io.Copy(writer, out)
		} else {
			_, err = stdcopy.StdCopy(writer, writer, out)
		}
		writer.CloseWithError(err)
	}()
	for lines := bufio.NewReaderSize(reader, 64<<10); ; {
		text, tooLong, err := lines.ReadLine()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		_ = tooLong // the rest of such a line is shown as the next one
		select {
		case v.logs <- logLine{page: page, text: string(text)}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// openExplanation shows what the engine explains of a container.
func (v *view) openExplanation(ctx context.Context, list []row, at int) {
	if len(list) == 0 {
		return
	}
	text, err := v.Explain(ctx, list[at].ID, v.width)
	if err != nil {
		text = err.Error()
	}
	v.page = &pager{title: " explain " + printable(list[at].Name), lines: strings.Split(strings.TrimRight(text, "\n"), "\n")}
}

const help = `
 Up, Down, PgUp, PgDn, Home, End   choose a container
 Enter or l   its log, which is followed
 e            why it is as it is: berth explain
 a            show stopped containers too
 /            show only names, images and ids with a text; Esc shows all again
 q, ctrl-c    leave

 Sort by (the same key again turns the order round):
 c  CPU             m  memory against its limit
 d  disk            t  network traffic
 p  processes       w  waiting (pressure)
 r  restarts        n  name

 CPU%    of one processor, as in berth stats; CPUS is its limit in processors
 MEM%    of the container's limit, or of the host where it has none
 DISK/s  bytes read and written; NET/s received and sent
 WAIT%   of the last 10 s in which some process of it waited for a processor,
         for memory or for I/O, whichever is most (PSI)
 RST     how often its restart policy has started it again`
