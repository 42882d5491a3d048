package manual

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestWrite(t *testing.T) {
	run := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "berth [OPTIONS] COMMAND", Short: "Run things", Run: run}
	sub := &cobra.Command{Use: "go-on IMAGE", Short: "Go on", Long: "First.\n\n.second \\ paragraph", Run: run}
	sub.Flags().StringP("name", "n", "x-y", "Give a `word`")
	sub.Flags().Bool("secret", false, "nobody knows")
	sub.Flags().Lookup("secret").Hidden = true
	root.AddCommand(sub, &cobra.Command{Use: "hidden", Hidden: true, Run: run})
	dir := t.TempDir()
	if err := Write(root, dir); err != nil {
		t.Fatal(err)
	}
	if pages, _ := filepath.Glob(filepath.Join(dir, "*")); len(pages) != 2 {
		t.Errorf("pages %q", pages)
	}
	text, err := os.ReadFile(filepath.Join(dir, "berth-go-on.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		".TH \"BERTH\\-GO\\-ON\" 1", ".SH NAME\nberth\\-go\\-on \\- Go on\n", ".B berth go\\-on IMAGE\n",
		"First.\n.PP\n\\&.second \\e paragraph\n", "\\fB\\-n\\fR, \\fB\\-\\-name\\fR \\fIword\\fR\nGive a word (default x\\-y)\n", ".BR berth (1)\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "secret") {
		t.Error("a hidden flag is shown")
	}
}
