package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/render"
)

// inspection are the flags of the inspect commands.
type inspection struct {
	format string
	kind   string
	size   bool
	// verbose is for networks.
	verbose bool
}

func newInspect(a *app) *cobra.Command {
	var i inspection
	cmd := verb("inspect [OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on engine objects", 1, -1,
		func(cmd *cobra.Command, args []string) error { return a.inspect(cmd.Context(), &i, args) })
	cmd.Flags().StringVarP(&i.format, "format", "f", "", inspectFormatHelp)
	cmd.Flags().StringVar(&i.kind, "type", "", "Only inspect objects of the given type")
	cmd.Flags().BoolVarP(&i.size, "size", "s", false, "Display total file sizes if the type is container")
	completeFlag(cmd, "type", fixed("container", "image", "network", "volume"))
	cmd.ValidArgsFunction = a.completeObjects
	return cmd
}

// newInspectOf is inspect for one kind of object.
func newInspectOf(a *app, kind string) *cobra.Command {
	i := inspection{kind: kind}
	cmd := verb("inspect [OPTIONS] "+map[string]string{
		"container": "CONTAINER [CONTAINER...]", "image": "IMAGE [IMAGE...]", "network": "NETWORK [NETWORK...]",
		"volume": "VOLUME [VOLUME...]",
	}[kind], "Display detailed information on one or more "+kind+"s", 1, -1,
		func(cmd *cobra.Command, args []string) error { return a.inspect(cmd.Context(), &i, args) })
	cmd.Flags().StringVarP(&i.format, "format", "f", "", inspectFormatHelp)
	switch kind {
	case "container":
		cmd.Flags().BoolVarP(&i.size, "size", "s", false, "Display total file sizes")
		cmd.ValidArgsFunction = a.completeContainers(anyState)
	case "image":
		cmd.ValidArgsFunction = a.completeImages
	case "network":
		cmd.Flags().BoolVarP(&i.verbose, "verbose", "v", false, "Verbose output for diagnostics")
		cmd.ValidArgsFunction = a.completeNetworks
	case "volume":
		cmd.ValidArgsFunction = a.completeVolumes
	}
	return cmd
}

// kindOf is a kind of object: how it is asked for and the type that describes it.
type kindOf struct {
	name string
	get  func(ctx context.Context, c *client.Client, ref string) (json.RawMessage, error)
	typ  func() any
}

func (i *inspection) kinds() []kindOf {
	return []kindOf{
		{"container", func(ctx context.Context, c *client.Client, ref string) (json.RawMessage, error) {
			return c.ContainerInspect(ctx, ref, i.size)
		}, func() any { return &container.InspectResponse{} }},
		{"image", func(ctx context.Context, c *client.Client, ref string) (json.RawMessage, error) {
			return c.ImageInspect(ctx, ref)
		}, func() any { return &image.InspectResponse{} }},
		{"network", func(ctx context.Context, c *client.Client, ref string) (json.RawMessage, error) {
			return c.NetworkInspect(ctx, ref, i.verbose)
		}, func() any { return &network.Inspect{} }},
		{"volume", func(ctx context.Context, c *client.Client, ref string) (json.RawMessage, error) {
			return c.VolumeInspect(ctx, ref)
		}, func() any { return &volume.Volume{} }},
	}
}

func (a *app) inspect(ctx context.Context, i *inspection, refs []string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	kinds := i.kinds()
	if i.kind != "" {
		var chosen []kindOf
		for _, k := range kinds {
			if k.name == i.kind {
				chosen = append(chosen, k)
			}
		}
		if kinds = chosen; kinds == nil {
			return fmt.Errorf("%q is not a valid value for --type: want container, image, network or volume", i.kind)
		}
	}
	var found []json.RawMessage
	var errs []error
	for _, ref := range refs {
		raw, kind, err := find(ctx, c, kinds, ref)
		if err == nil && i.format != "" && !render.IsJSON(i.format) {
			err = a.printObject(i.format, raw, kind.typ())
		}
		if err != nil && !repeated(errs, err) {
			errs = append(errs, err)
		} else if err == nil {
			found = append(found, raw)
		}
	}
	if i.format == "" || render.IsJSON(i.format) {
		errs = append(errs, a.printObjects(found, render.IsJSON(i.format)))
	}
	return errors.Join(errs...)
}

// find asks for an object of each kind in turn.
func find(ctx context.Context, c *client.Client, kinds []kindOf, ref string) (json.RawMessage, kindOf, error) {
	for _, k := range kinds {
		raw, err := k.get(ctx, c, ref)
		if err == nil || !client.NotFound(err) || len(kinds) == 1 {
			return raw, k, err
		}
	}
	return nil, kindOf{}, fmt.Errorf("no such object: %s", ref)
}

// printObjects prints a JSON list, also an empty one; compact on one line.
func (a *app) printObjects(all []json.RawMessage, compact bool) error {
	var list, out bytes.Buffer
	list.WriteByte('[')
	for i, raw := range all {
		if i > 0 {
			list.WriteByte(',')
		}
		list.Write(raw)
	}
	list.WriteByte(']')
	layout := func() error { return json.Indent(&out, list.Bytes(), "", "    ") }
	if compact {
		layout = func() error { return json.Compact(&out, list.Bytes()) }
	}
	if err := layout(); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err := a.out.Write(out.Bytes())
	return err
}

// printObject prints an object by a template: with the fields of its Go type,
// or, for what that lacks or calls otherwise, those of the JSON text.
func (a *app) printObject(format string, raw json.RawMessage, typed any) error {
	if render.IsJSON(format) {
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			return err
		}
		b.WriteByte('\n')
		_, err := a.out.Write(b.Bytes())
		return err
	}
	firstErr := json.Unmarshal(raw, typed)
	if firstErr == nil {
		if firstErr = render.One(a.out, format, typed); firstErr == nil {
			return nil
		}
	}
	var plain any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&plain); err != nil {
		return firstErr
	}
	if err := render.OneStrict(a.out, format, plain); err != nil {
		return firstErr
	}
	return nil
}
