package main

import (
	"fmt"
	"net"
	"os"
)

// notifySocket is where systemd wants to hear of the daemon's state
// (sd_notify(3)); empty when nobody does.
type notifySocket string

// takeNotifySocket takes the socket's address out of the environment, where
// the keeper would inherit it.
func takeNotifySocket() notifySocket {
	const variable = "NOTIFY_SOCKET"
	address := os.Getenv(variable)
	_ = os.Unsetenv(variable) // fails for bad names only
	return notifySocket(address)
}

// send tells the state, such as READY=1.
func (n notifySocket) send(state string) error {
	if n == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: string(n), Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
