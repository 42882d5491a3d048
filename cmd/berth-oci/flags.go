package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
)

// errUsage: the usage was printed, nothing more is to be said.
var errUsage = errors.New("usage")

func newFlags(name, args string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "usage: %s %s\n", name, args)
		fs.PrintDefaults()
	}
	return fs
}

// parse reads args; done means that the caller has nothing left to do but to
// exit with code. help prints the whole program's usage, nil that of fs.
func parse(fs *flag.FlagSet, args []string, help func(io.Writer)) (code int, done bool) {
	err := fs.Parse(args)
	switch {
	case err == nil:
		return 0, false
	case errors.Is(err, flag.ErrHelp):
		if help != nil {
			help(os.Stdout)
		} else {
			fs.SetOutput(os.Stdout)
			fs.Usage()
		}
		return 0, true
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", fs.Name(), err)
	return 1, true
}

// parseID reads the flags of a command on one container, and its id. Where no
// command follows, flags may come after the id as well, as with runc.
func parseID(fs *flag.FlagSet, args []string, most int) (id string, code int, err error) {
	if code, done := parse(fs, args, nil); done {
		return "", code, errUsage
	}
	if most < anyNumber {
		var plain []string
		for fs.NArg() > 0 {
			plain = append(plain, fs.Arg(0))
			if code, done := parse(fs, fs.Args()[1:], nil); done {
				return "", code, errUsage
			}
		}
		if code, done := parse(fs, append([]string{"--"}, plain...), nil); done {
			return "", code, errUsage
		}
	}
	if fs.NArg() == 0 || fs.NArg() > most {
		return "", 1, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s: wrong number of arguments: %d", fs.Name(), fs.NArg()))
	}
	return fs.Arg(0), 0, nil
}

// anyNumber of arguments: the first is the id, the others are somebody else's.
const anyNumber = 1 << 20

func boolFlag(fs *flag.FlagSet, long, short string, value bool, usage string) *bool {
	v := fs.Bool(long, value, usage)
	fs.BoolVar(v, short, value, "same as --"+long)
	return v
}

func stringFlag(fs *flag.FlagSet, long, short, value, usage string) *string {
	v := fs.String(long, value, usage)
	fs.StringVar(v, short, value, "same as --"+long)
	return v
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return fmt.Sprint([]string(*l)) }

// Set appends a value.
func (l *list) Set(v string) error {
	*l = append(*l, v)
	return nil
}

// version is set when the program is built.
var version = "dev"

func printVersion(w io.Writer) {
	fmt.Fprintf(w, "berth-oci version %s\nspec: %s\n", version, specs.Version)
	if info, ok := debug.ReadBuildInfo(); ok {
		fmt.Fprintf(w, "go: %s\n", info.GoVersion)
	}
}
