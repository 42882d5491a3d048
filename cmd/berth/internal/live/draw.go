package live

import (
	"fmt"
	"io"
	"strings"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// draw shows the view as it is now.
func (v *view) draw() error {
	height, width := terminal.Size(v.Out)
	if v.height, v.width = int(height), int(width); height == 0 || width == 0 {
		v.height, v.width = 24, 80
	}
	var lines []line
	if v.page != nil {
		lines = v.page.draw(v.height)
	} else {
		lines = v.table()
	}
	_, err := io.WriteString(v.Out, paint(lines, v.width, v.height, v.Colours))
	return err
}

// table is the host in a line, titles, a line for each container, keys.
func (v *view) table() []line {
	list := v.list()
	at := v.index(list)
	if len(list) > 0 {
		v.selected = list[at].ID
	}
	page := max(1, v.height-3)
	v.top = max(0, min(v.top, at, len(list)-page))
	v.top = max(v.top, at-page+1)
	chosen, name := fit(v.width)
	out := []line{{v.summary(), bold}, {titles(chosen, name), reverse}}
	for i := range page {
		n := v.top + i
		if n >= len(list) {
			out = append(out, line{})
			continue
		}
		r := &list[n]
		text := " "
		if n == at {
			text = ">"
		}
		text += pad(printable(r.Name), name, true)
		for _, c := range chosen {
			text += " " + pad(printable(c.text(r, v.now.Time, v.now.MemoryTotal)), c.width, c.left)
		}
		out = append(out, line{text, look(r, n == at, v.now.MemoryTotal)})
	}
	return append(out, line{v.foot(len(list)), bold})
}

// look colours what wants to be seen.
func look(r *row, selected bool, host uint64) string {
	switch {
	case selected:
		return reverse
	case r.Health == "unhealthy" || r.Status == "restarting" || r.running() && r.memoryShare(host) > 95 && r.MemoryLimit > 0:
		return red
	case r.Status == "paused" || r.CPUs > 0 && r.cpu > 95*r.CPUs:
		return yellow
	case r.running() && r.cpu > 10:
		return green
	}
	return ""
}

func titles(chosen []column, name int) string {
	text := " " + pad("NAME", name, true)
	for _, c := range chosen {
		text += " " + pad(c.title, c.width, c.left)
	}
	return text
}

// summary is the host's line.
func (v *view) summary() string {
	o := v.now
	running := 0
	for i := range o.Containers {
		if s := o.Containers[i].Status; s == "running" || s == "paused" {
			running++
		}
	}
	text := fmt.Sprintf(" %s  %d running, %d not", o.Time.Local().Format("15:04:05"), running, len(o.Containers)-running)
	text += fmt.Sprintf("  cpu %s%% of %d%%", containersCPU(v.now, v.before), 100*o.CPUs)
	text += fmt.Sprintf("  mem %s free of %s", short(float64(o.MemoryAvailable)), short(float64(o.MemoryTotal)))
	if v.problem != nil {
		text = fmt.Sprintf(" no engine answers since %s; trying again", o.Time.Local().Format("15:04:05"))
	}
	return text
}

// containersCPU is what all containers together take, in percent of one processor.
func containersCPU(now, before *client.Overview) string {
	if before == nil {
		return "-"
	}
	sum := 0.0
	for _, r := range rows(now, before) {
		sum += max(0, r.cpu)
	}
	return fmt.Sprintf("%.0f", sum)
}

// foot is the keys' line, or the filter that is typed.
func (v *view) foot(shown int) string {
	if v.typing {
		return " filter: " + v.Filter + "_  (Enter keeps it, Esc clears it)"
	}
	arrow := ""
	if v.backwards {
		arrow = " reversed"
	}
	text := fmt.Sprintf(" by %s%s", v.by.name, arrow)
	if v.Filter != "" {
		text += fmt.Sprintf("  filter %q", v.Filter)
	}
	if n := len(v.now.Containers) - shown; n > 0 {
		text += fmt.Sprintf("  %d hidden", n)
	}
	return text + strings.Repeat(" ", 2) + "q quit  h help  l log  e explain  / filter  a all"
}
