package cli

import (
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
)

// completion is cobra's function that completes an argument.
type completion = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

const noFiles = cobra.ShellCompDirectiveNoFileComp

func completeFlag(cmd *cobra.Command, flag string, fn completion) {
	if err := cmd.RegisterFlagCompletionFunc(flag, fn); err != nil {
		panic(err) // a flag's name is misspelt
	}
}

// fixed completes from a fixed list.
func fixed(values ...string) completion {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return values, noFiles }
}

func noCompletion(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, noFiles
}

// asking returns the client for a completion, which must not start an engine.
func (a *app) asking() *client.Client {
	c, err := a.client()
	if err != nil {
		return nil
	}
	c.Start = nil
	return c
}

func anyState(container.ContainerState) bool { return true }

func isRunning(s container.ContainerState) bool { return s == container.StateRunning }

func isPaused(s container.ContainerState) bool { return s == container.StatePaused }

func isStopped(s container.ContainerState) bool {
	return s == container.StateCreated || s == container.StateExited
}

// completeContainers completes names of containers in a state, any number of them.
func (a *app) completeContainers(want func(container.ContainerState) bool) completion {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		c := a.asking()
		if c == nil {
			return nil, noFiles
		}
		list, err := c.ContainerList(cmd.Context(), client.ListOptions{All: true})
		if err != nil {
			return nil, noFiles
		}
		var names []string
		for _, s := range list {
			if !want(s.State) {
				continue
			}
			for _, name := range s.Names {
				names = append(names, strings.TrimPrefix(name, "/"))
			}
		}
		return without(names, args), noFiles
	}
}

// completeContainer completes the first argument only.
func (a *app) completeContainer(want func(container.ContainerState) bool) completion {
	return firstOnly(a.completeContainers(want), noFiles)
}

// firstOnly limits a completion to the first argument.
func firstOnly(fn completion, then cobra.ShellCompDirective) completion {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, then
		}
		return fn(cmd, args, typed)
	}
}

// completeImages completes names of images, any number of them.
func (a *app) completeImages(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	c := a.asking()
	if c == nil {
		return nil, noFiles
	}
	list, err := c.ImageList(cmd.Context(), client.ImageListOptions{})
	if err != nil {
		return nil, noFiles
	}
	var names []string
	for _, s := range list {
		for _, tag := range s.RepoTags {
			if tag != "<none>:<none>" {
				names = append(names, tag, strings.TrimSuffix(tag, ":latest"))
			}
		}
	}
	return without(names, args), noFiles
}

// completeImage completes an image, then a command's words as files.
func (a *app) completeImage(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return firstOnly(a.completeImages, cobra.ShellCompDirectiveDefault)(cmd, args, typed)
}

func (a *app) completeNetworks(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	c := a.asking()
	if c == nil {
		return nil, noFiles
	}
	list, err := c.NetworkList(cmd.Context(), nil)
	if err != nil {
		return nil, noFiles
	}
	var names []string
	for _, n := range list {
		names = append(names, n.Name)
	}
	return without(names, args), noFiles
}

// without drops what has been given and what comes twice.
func without(names, given []string) []string {
	seen := map[string]bool{}
	for _, g := range given {
		seen[g] = true
	}
	var rest []string
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			rest = append(rest, n)
		}
	}
	return rest
}
