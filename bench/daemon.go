package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/berth-containers/berth/bench/spawn"
)

// daemon is a running service.
type daemon struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when it has ended
}

// startDaemon starts a service where the commands of o live and returns when it
// has said that it is ready (sd_notify(3), which all services here do). name
// is that of its log, in dir.
func startDaemon(ctx context.Context, o spawn.Options, dir, name string, argv []string) (*daemon, error) {
	notify := filepath.Join("/run", name+".notify")
	if err := os.RemoveAll(notify); err != nil {
		return nil, err
	}
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := o.Command(argv...)
	cmd.Env = append(cmd.Env[:len(cmd.Env):len(cmd.Env)], "NOTIFY_SOCKET="+notify)
	cmd.Stdout, cmd.Stderr = log, log
	// Its terminal and its session are not ours.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	d := &daemon{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // its status is of no interest: it was told to end, or its log says why
		ready.Close()
		close(d.done)
	}()
	if err := awaitReady(ctx, ready); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w: %s", name, err, lastLines(log.Name())), d.stop())
	}
	return d, nil
}

// awaitReady reads until the service is ready.
func awaitReady(ctx context.Context, ready *net.UnixConn) error {
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	if err := ready.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	message := make([]byte, 4096)
	for {
		n, err := ready.Read(message)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(message[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				return nil
			}
		}
	}
}

// lastLines is the end of a log.
func lastLines(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-1000):])
}

// stop tells the service to end and waits until it has.
func (d *daemon) stop() error {
	err := d.cmd.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-d.done
	return errors.Join(err, d.log.Close())
}
