package cli

import (
	"fmt"
	"sort"
	"strings"

	"github.com/spf13/cobra"
)

// command is a command and how to make it. Making one builds its flags, which
// takes a while for all of them together: see newRoot.
type command struct {
	name  string
	group string
	make  func(*app) *cobra.Command
}

const (
	groupCommon = "common"
	groupNouns  = "nouns"
	groupOther  = "other"
)

// commands are those of the root.
func commands() []command {
	return []command{
		{"run", groupCommon, newRun}, {"exec", groupCommon, newExec}, {"ps", groupCommon, newPs},
		{"pull", groupCommon, newPull}, {"push", groupCommon, newPush}, {"images", groupCommon, newImages},
		{"login", groupCommon, newLogin}, {"logout", groupCommon, newLogout}, {"version", groupCommon, newVersion},
		{"info", groupCommon, newInfo},

		{"container", groupNouns, newContainerGroup}, {"image", groupNouns, newImageGroup},
		{"network", groupNouns, newNetworkGroup}, {"system", groupNouns, newSystemGroup},
		{"volume", groupNouns, newVolumeGroup},

		{"attach", groupOther, newAttach}, {"commit", groupOther, newCommit}, {"cp", groupOther, newCp}, {"create", groupOther, newCreate},
		{"diff", groupOther, newDiff},
		{"events", groupOther, newEvents}, {"export", groupOther, newExport}, {"history", groupOther, newHistory},
		{"import", groupOther, newImport}, {"inspect", groupOther, newInspect}, {"kill", groupOther, newKill},
		{"load", groupOther, newLoad}, {"logs", groupOther, newLogs}, {"pause", groupOther, newPause},
		{"port", groupOther, newPort}, {"rename", groupOther, newRename}, {"restart", groupOther, newRestart},
		{"rm", groupOther, newRm}, {"rmi", groupOther, newRmi}, {"save", groupOther, newSave},
		{"start", groupOther, newStart}, {"stats", groupOther, newStats}, {"stop", groupOther, newStop},
		{"tag", groupOther, newTag}, {"top", groupOther, newTop}, {"unpause", groupOther, newUnpause},
		{"update", groupOther, newUpdate}, {"wait", groupOther, newWait}, {"explain", groupOther, newExplain},

		{"gen-man", "", newGenMan},
	}
}

// newRoot makes the root with the one command that args name, or with all
// when they name none (help, completion, a mistake): making one command and
// not forty is a good part of how fast berth starts.
func newRoot(a *app, args []string) *cobra.Command {
	showVersion := false
	root := &cobra.Command{
		Use: "berth [OPTIONS] COMMAND", Short: "Run programs in berths of their own: isolated, sized, protected",
		SilenceErrors: true, SilenceUsage: true, TraverseChildren: true, DisableFlagsInUseLine: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case showVersion:
				_, err := fmt.Fprintln(a.out, "berth version "+clientVersion().Version)
				return err
			case len(args) > 0:
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	root.Flags().StringVarP(&a.host, "host", "H", "", "Address of the engine: unix:///path or tcp://host:port (default BERTH_HOST, then unix:///run/berth/berth.sock)")
	root.Flags().BoolVarP(&showVersion, "version", "v", false, "Print the version of berth and quit")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return withStatus(125, &usageError{message: flagMistake(err.Error()), command: cmd.CommandPath()})
	})
	all := commands()
	if name := firstWord(args); name != "" {
		for _, c := range all {
			if c.name == name {
				root.AddCommand(withExamples(c.make(a), name))
				root.CompletionOptions.DisableDefaultCmd = true
				root.SetHelpCommand(&cobra.Command{Hidden: true})
				return root
			}
		}
	}
	root.AddGroup(&cobra.Group{ID: groupCommon, Title: "Common Commands:"},
		&cobra.Group{ID: groupNouns, Title: "Management Commands:"},
		&cobra.Group{ID: groupOther, Title: "Commands:"})
	for _, c := range all {
		cmd := withExamples(c.make(a), c.name)
		cmd.GroupID = c.group
		root.AddCommand(cmd)
	}
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		a.completeFlags(root)
	}
	return root
}

// flagMistake is the text of a wrong flag without the names of Go's functions.
func flagMistake(text string) string {
	before, after, found := strings.Cut(text, ": strconv.")
	if !found {
		return text
	}
	switch {
	case strings.HasPrefix(after, "ParseBool"):
		return before + ": want true or false"
	case strings.HasSuffix(after, "value out of range"):
		return before + ": out of range"
	}
	return before + ": want a number"
}

// firstWord is the first argument that is neither a root flag nor its value.
func firstWord(args []string) string {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "-H" || arg == "--host":
			i++
		case !strings.HasPrefix(arg, "-"):
			return arg
		}
	}
	return ""
}

func unknownCommand(cmd *cobra.Command, name string) error {
	err := &usageError{message: fmt.Sprintf("unknown command: %s %s", cmd.CommandPath(), name), command: cmd.CommandPath()}
	cmd.SuggestionsMinimumDistance = min(2, len(name)/3) // of a short word nearly all is left to a guess
	if similar := cmd.SuggestionsFor(name); len(similar) > 0 {
		sort.Strings(similar)
		return &hinted{error: err, hint: "did you mean " + strings.Join(similar, " or ") + "?"}
	}
	return err
}

// group makes a noun's command of its verbs.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use + " COMMAND", Short: short, DisableFlagsInUseLine: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(verbs...)
	return cmd
}

// renamed gives a command another name within its noun: ls for ps.
func renamed(cmd *cobra.Command, name string, aliases ...string) *cobra.Command {
	_, rest, ok := strings.Cut(cmd.Use, " ")
	cmd.Use = name
	if ok {
		cmd.Use += " " + rest
	}
	cmd.Aliases = aliases
	return cmd
}

// verb makes a command that takes between least and most arguments; most < 0
// is without end.
func verb(use, short string, least, most int, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, DisableFlagsInUseLine: true, RunE: run,
		Args: func(cmd *cobra.Command, args []string) error {
			n := len(args)
			if n >= least && (most < 0 || n <= most) {
				return nil
			}
			return &usageError{message: fmt.Sprintf("'%s' %s", cmd.CommandPath(), countRule(least, most)), command: cmd.CommandPath()}
		},
	}
}

func countRule(least, most int) string {
	plural := func(n int) string {
		if n == 1 {
			return "1 argument"
		}
		return fmt.Sprintf("%d arguments", n)
	}
	switch {
	case most == 0:
		return "accepts no arguments"
	case most < 0:
		return "requires at least " + plural(least)
	case least == most:
		return "requires " + plural(least)
	}
	return fmt.Sprintf("requires at least %d and at most %s", least, plural(most))
}
