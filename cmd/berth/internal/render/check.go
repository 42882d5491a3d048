package render

import (
	"bytes"
	"fmt"
	"io"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
)

// Check prints what a check has found, three lines for each finding, and a
// summary.
func Check(w io.Writer, report *client.Check) error {
	var b bytes.Buffer
	repaired := 0
	for _, f := range report.Findings {
		fmt.Fprintf(&b, "%s: %s\n", f.Object, f.Problem)
		switch {
		case f.Repaired != "":
			repaired++
			fmt.Fprintf(&b, "  repaired: %s\n", f.Repaired)
		case f.Error != "":
			fmt.Fprintf(&b, "  not repaired: %s\n  remedy: %s\n", f.Error, f.Remedy)
		case f.Repairable:
			fmt.Fprintf(&b, "  remedy: %s (--repair does it)\n", f.Remedy)
		default:
			fmt.Fprintf(&b, "  remedy: %s\n", f.Remedy)
		}
	}
	fmt.Fprintf(&b, "%s, %s and %s checked: ", count(report.Checked["containers"], "container"),
		count(report.Checked["images"], "image"), count(report.Checked["networks"], "network"))
	switch n := len(report.Findings); {
	case n == 0:
		b.WriteString("nothing found\n")
	case repaired > 0:
		fmt.Fprintf(&b, "%s, %d repaired\n", count(n, "finding"), repaired)
	default:
		fmt.Fprintf(&b, "%s\n", count(n, "finding"))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
