package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/berth-containers/berth/bench/measure"
)

// The plot's measures, in pixels.
const (
	plotWidth   = 960
	panelWidth  = 450
	panelGap    = 30
	margin      = 15
	headHeight  = 62
	titleHeight = 26
	barHeight   = 16
	barStep     = 21
	groupGap    = 12
	nameWidth   = 78
	labelWidth  = 104
	footHeight  = 34
)

// steps are the commands that are a part of run, and not drawn.
var steps = []string{"create", "start", "delete"}

// bar is a candidate's median in a group.
type bar struct {
	name string
	ms   float64
	// times is the value in Berth's; 0 when Berth was not measured.
	times float64
	own   bool
}

type group struct {
	title string
	bars  []bar
}

// WriteSVG draws the median wall times, one after the other: a panel for each
// kind with a scale of its own, a group of bars for each case. Without timings
// it writes nothing and says so.
func (r *Results) WriteSVG(w io.Writer) (written bool, err error) {
	var panels []string
	height := 0
	for i, kind := range []string{Runtimes, Engines} {
		groups := r.groups(kind)
		if len(groups) == 0 {
			continue
		}
		x := margin + i*(panelWidth+panelGap)
		text, h := drawPanel(x, panelTitle(kind), groups)
		panels = append(panels, text)
		height = max(height, h)
	}
	if panels == nil {
		return false, nil
	}
	height += footHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" `+
		`font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="12">`+"\n", plotWidth, height)
	b.WriteString("<title>Time from the command to its end, of Berth and its peers</title>\n")
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="6" fill="#ffffff"/>`+"\n", plotWidth, height)
	b.WriteString(label(margin, 24, `font-size="16" font-weight="600"`, "Time from the command to its end, median in milliseconds (less is better)"))
	for _, p := range panels {
		b.WriteString(p)
	}
	b.WriteString(label(margin, height-12, `fill="#57606a" font-size="11"`,
		fmt.Sprintf("%s, %d processors, Linux %s. × is the time in Berth's. One command after the other, in random turns.", r.Machine.CPU, r.Machine.CPUs, r.Machine.Kernel)))
	b.WriteString("</svg>\n")
	_, err = io.WriteString(w, b.String())
	return true, err
}

func panelTitle(kind string) string {
	if kind == Engines {
		return "Engines"
	}
	return "OCI runtimes"
}

// groups are a kind's cases with the candidates that were measured in them.
func (r *Results) groups(kind string) []group {
	var groups []group
	for _, name := range r.cases(kind) {
		if step, _, _ := strings.Cut(name, ","); slices.Contains(steps, step) {
			continue
		}
		g := group{title: name}
		own := r.timing(kind, name, Tight, berth(kind))
		for _, c := range r.candidates(kind, name) {
			t := r.timing(kind, name, Tight, c)
			if t == nil || (c != berth(kind) && !r.isPeer(kind, c)) {
				continue
			}
			g.bars = append(g.bars, bar{c, measure.Median(t.WallMS), ratio(t, own).Value, c == berth(kind)})
		}
		if len(g.bars) > 0 {
			groups = append(groups, g)
		}
	}
	return groups
}

// drawPanel draws groups below one another and returns where they end.
func drawPanel(x int, title string, groups []group) (text string, bottom int) {
	var b strings.Builder
	most := 0.0
	for _, g := range groups {
		for _, bar := range g.bars {
			most = max(most, bar.ms)
		}
	}
	b.WriteString(label(x, headHeight-12, `font-size="14" font-weight="600"`, title))
	y := headHeight
	for _, g := range groups {
		b.WriteString(label(x, y+15, `fill="#57606a"`, g.title))
		y += titleHeight
		for _, bar := range g.bars {
			b.WriteString(drawBar(x, y, bar, most))
			y += barStep
		}
		y += groupGap
	}
	return b.String(), y
}

func drawBar(x, y int, v bar, most float64) string {
	length := 0.0
	if most > 0 {
		length = v.ms / most * (panelWidth - nameWidth - labelWidth)
	}
	fill, text := "#b6bec8", figure(v.ms)
	if v.own {
		fill = "#0a66c2"
	} else if v.times > 0 {
		text += fmt.Sprintf(" (%.1f×)", v.times)
	}
	const baseline = barHeight - 4
	return label(x+nameWidth-6, y+baseline, `text-anchor="end"`, v.name) +
		fmt.Sprintf(`<rect x="%d" y="%d" width="%.1f" height="%d" rx="2" fill="%s"/>`+"\n", x+nameWidth, y, max(length, 1), barHeight, fill) +
		label(x+nameWidth+int(length)+6, y+baseline, `font-weight="600"`, text)
}

// label is a text whose baseline begins, or by its attributes ends, at x, y.
func label(x, y int, attributes, text string) string {
	if !strings.Contains(attributes, "fill=") {
		attributes += ` fill="#1f2328"`
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<text x="%d" y="%d" %s>`, x, y, attributes)
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	b.WriteString("</text>\n")
	return b.String()
}
