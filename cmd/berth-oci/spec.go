package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

func runSpec(_ *app, flags *flag.FlagSet, args []string) (int, error) {
	bundle := stringFlag(flags, "bundle", "b", ".", "`directory` to write config.json to")
	rootless := flags.Bool("rootless", false, "for an ordinary user: a user namespace, no cgroups")
	if code, done := parse(flags, args, nil); done {
		return code, errUsage
	}
	spec := oci.DefaultSpec()
	if *rootless {
		oci.MakeRootless(spec, os.Geteuid(), os.Getegid())
	}
	b, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return 1, err
	}
	f, err := os.OpenFile(filepath.Join(*bundle, "config.json"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return 1, errdefs.WithHint(errdefs.As(errdefs.ErrConflict, err), "remove it first")
	}
	if err != nil {
		return 1, err
	}
	_, err = f.Write(append(b, '\n'))
	return 0, errors.Join(err, f.Close())
}

// runFeatures prints what of the specification is supported (features.md).
func runFeatures(a *app, flags *flag.FlagSet, args []string) (int, error) {
	if code, done := parse(flags, args, nil); done {
		return code, errUsage
	}
	if flags.NArg() > 0 {
		return 1, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("features: it takes no arguments"))
	}
	f, err := oci.Features()
	if err != nil {
		return 1, err
	}
	f.Annotations = map[string]string{"io.github.berth-containers.berth-oci.version": version}
	return 0, printJSON(a, f)
}

func runExplain(a *app, flags *flag.FlagSet, args []string) (int, error) {
	if code, done := parse(flags, args, nil); done {
		return code, errUsage
	}
	l := launchFlags{bundle: "."}
	switch flags.NArg() {
	case 0:
	case 1:
		l.bundle = flags.Arg(0)
	default:
		return 1, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("explain: more than one bundle"))
	}
	spec, _, err := l.bundled()
	if err != nil && !errors.Is(err, errNeedsSocket) {
		return 1, err
	}
	plan, err := oci.Compile(spec, l.bundle)
	if err != nil {
		return 1, err
	}
	return 0, plan.Explain(a.stdout)
}
