package report

import (
	"fmt"
	"strings"

	"github.com/berth-containers/berth/bench/measure"
)

// writePulls writes how long engines take to bring a real image in, what it
// costs, and Berth's time in that of the fastest peer.
func (r *Results) writePulls(b *strings.Builder) {
	cases := r.cases(Pulls)
	if len(cases) == 0 {
		return
	}
	b.WriteString("## Images\n\n")
	for _, name := range cases {
		t := table{head: []string{"", "wall ms", "min", "× Berth", "CPU ms", "peak MiB", "n"}}
		own := r.timing(Pulls, name, Tight, BerthEngine)
		var fastest *Timing
		for _, c := range r.candidates(Pulls, name) {
			m := r.timing(Pulls, name, Tight, c)
			t.add(append(append([]string{c}, timeCells(m, own)...), figure(measure.Median(m.PeakKiB)/1024), fmt.Sprint(len(m.WallMS)))...)
			if c != BerthEngine && (fastest == nil || measure.Median(m.WallMS) < measure.Median(fastest.WallMS)) {
				fastest = m
			}
		}
		fmt.Fprintf(b, "### %s\n\n%s\n", name, &t)
		if own != nil && fastest != nil {
			fmt.Fprintf(b, "Berth in the time of the fastest peer, %s: %s; in its processor time: %s.\n\n",
				fastest.Candidate, interval(ratio(own, fastest)), processorRatio(own, fastest))
		}
	}
}
