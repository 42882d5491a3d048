// Berth is the command people type: a client of the Berth engine, which it
// starts when root finds none running.
//
// The command is too short-lived for its share of the CPU to matter: it does
// not read the cgroup's limit at its start.
//
//go:debug containermaxprocs=0
package main

import (
	"os"

	"github.com/berth-containers/berth/cmd/berth/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
